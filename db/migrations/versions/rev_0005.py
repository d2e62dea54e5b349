"""What an answer has besides its text, what a tried job gave before, and a worker's adapters."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, column in _ADDED:
        op.add_column(table, sa.Column(column, sa.Text(), nullable=True))


def downgrade() -> None:
    """Raises RuntimeError where there is what revision 0004 has no place for."""
    for table, column in _ADDED:
        there = sa.text(f"SELECT 1 FROM {table} WHERE {column} IS NOT NULL LIMIT 1")  # noqa: S608
        if op.get_bind().scalar(there):
            raise RuntimeError(f"{table} have {column}, which would be lost: delete them first")
    for table, column in reversed(_ADDED):
        op.drop_column(table, column)


_ADDED = (
    ("results", "reasoning"),
    ("results", "tool_calls"),
    ("attempts", "params"),
    ("attempts", "samples"),
    ("workers", "adapters"),
)
