"""What results come from: of each worker its hardware, back-end, weights and tokenizer."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS = {"backend": 80, "hardware": 80, "weights": 64, "tokenizer": 64}


def upgrade() -> None:
    for name, length in _COLUMNS.items():
        op.add_column("workers", sa.Column(name, sa.String(length=length), nullable=True))


def downgrade() -> None:
    for name in _COLUMNS:
        op.drop_column("workers", name)
