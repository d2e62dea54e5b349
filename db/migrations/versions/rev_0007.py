"""Counters of a batch's samples: how many, how many were cut, and what they have besides text."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in _COUNTS:
        op.add_column(
            "batches",
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        )
    for name in _CUTS:
        op.add_column("batches", sa.Column(name, sa.Integer(), nullable=True))
    _count_stored()


def downgrade() -> None:
    for name in (*_CUTS, *_COUNTS):
        op.drop_column("batches", name)


_COUNTS = ("samples", "truncated", "with_reasoning", "with_tool_calls", "with_logprobs")
_CUTS = ("shortest_cut", "longest_cut")


def _count_stored() -> None:
    """One scan of all results, a row a batch."""
    connection = op.get_bind()
    results = sa.table(
        "results",
        *map(sa.column, ("batch_id", "finish_reason", "completion_tokens")),
        *map(sa.column, ("reasoning", "tool_calls", "logprobs")),
    )
    cut = sa.case((results.c.finish_reason == "length", results.c.completion_tokens))
    counts: dict[str, Any] = {
        "samples": sa.func.count(),
        "truncated": sa.func.count(cut),
        "with_reasoning": sa.func.count(results.c.reasoning),
        "with_tool_calls": sa.func.count(results.c.tool_calls),
        "with_logprobs": sa.func.count(results.c.logprobs),
        "shortest_cut": sa.func.min(cut),
        "longest_cut": sa.func.max(cut),
    }
    query = sa.select(
        results.c.batch_id.label("key"), *(count.label(name) for name, count in counts.items())
    ).group_by(results.c.batch_id)
    rows = [row._asdict() for row in connection.execute(query)]
    batches = sa.table("batches", sa.column("id"), *map(sa.column, counts))
    if rows:
        connection.execute(
            sa.update(batches)
            .where(batches.c.id == sa.bindparam("key"))
            .values({name: sa.bindparam(f"{name}") for name in counts}),
            rows,
        )
