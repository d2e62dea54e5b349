"""Columns of the input that are returned with the results: a row's values, a batch's header."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("columns", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("columns", sa.Text(), nullable=True))


def downgrade() -> None:
    """Raises RuntimeError where a batch has columns, which revision 0005 cannot hold."""
    there = sa.text("SELECT 1 FROM batches WHERE columns IS NOT NULL LIMIT 1")
    if op.get_bind().scalar(there):
        raise RuntimeError("batches have input columns, which would be lost: delete them first")
    op.drop_column("jobs", "columns")
    op.drop_column("batches", "columns")
