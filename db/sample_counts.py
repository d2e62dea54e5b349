"""What the stored samples of a batch are like: counted as they are stored, so never by a scan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Protocol

#: The finish_reason of a text that a limit cut: `max_tokens`, `max_length`, the model's context.
TRUNCATED = "length"


class Sample(Protocol):
    """What is counted of a sample."""

    @property
    def finish_reason(self) -> str | None: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def logprobs(self) -> str | None: ...
    @property
    def reasoning(self) -> str | None: ...
    @property
    def tool_calls(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Counters of one batch. The names are those of columns in `batches`."""

    samples: int = 0
    #: Samples with finish_reason `length` …
    truncated: int = 0
    #: … and the fewest and the most tokens that one of them has; None: there is none.
    shortest_cut: int | None = None
    longest_cut: int | None = None
    with_reasoning: int = 0
    with_tool_calls: int = 0
    with_logprobs: int = 0


#: Columns of `batches`, in the order of the fields.
COUNTERS = tuple(field.name for field in fields(SampleCounts))


def counts_of(samples: Iterable[Sample]) -> SampleCounts:
    rows = list(samples)
    cuts = [row.completion_tokens for row in rows if row.finish_reason == TRUNCATED]
    return SampleCounts(
        samples=len(rows),
        truncated=len(cuts),
        shortest_cut=min(cuts, default=None),
        longest_cut=max(cuts, default=None),
        with_reasoning=sum(row.reasoning is not None for row in rows),
        with_tool_calls=sum(row.tool_calls is not None for row in rows),
        with_logprobs=sum(row.logprobs is not None for row in rows),
    )
