"""Scores and embeddings beside generated text: a batch's mode, and results without a text."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batches",
        sa.Column(
            "mode", sa.String(length=10), server_default=sa.text("'generate'"), nullable=False
        ),
    )
    # SQLite can't make a column nullable: it gets a new table and every row is copied.
    with op.batch_alter_table("results") as results:
        results.alter_column("text", existing_type=sa.Text(), nullable=True)
        results.alter_column("finish_reason", existing_type=sa.String(length=10), nullable=True)
        results.add_column(sa.Column("logprob", sa.Double(), nullable=True))
        results.add_column(sa.Column("embedding", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Raises RuntimeError where there is what revision 0003 has no place for."""
    measured = sa.text("SELECT count(*) FROM batches WHERE mode <> 'generate'")
    if op.get_bind().scalar(measured):
        raise RuntimeError("batches of scores or embeddings are there: delete them first")
    with op.batch_alter_table("results") as results:
        results.drop_column("embedding")
        results.drop_column("logprob")
        results.alter_column("finish_reason", existing_type=sa.String(length=10), nullable=False)
        results.alter_column("text", existing_type=sa.Text(), nullable=False)
    op.drop_column("batches", "mode")
