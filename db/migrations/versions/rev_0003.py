"""Scores and embeddings beside generated text: a batch's mode, and results without a text."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
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
