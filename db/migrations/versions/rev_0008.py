"""When a worker that is shutting down ends at the latest."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("stops_at", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "stops_at")
