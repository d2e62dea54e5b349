"""What became of a batch, in words: its counts, and what a count of successes does not say.

    completed: 298 of 300 succeeded, 2 failed, 38,144 tokens in 3 min 5 s (206 tok/s)
    12 of 298 texts were cut at max_tokens=128, the default: give -p max_tokens=512
    2 failed with prompt_too_long, such as bk3v9xq2h7mz-17: the prompt has 5,000 tokens …

Pure. Everything in it comes from the batch's row, but for the failures, which
`db.queries.failures` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from db.records import Batch, FailureGroup
from db.sampling import DEFAULT_MAX_TOKENS
from db.wording import count_of
from producer.display import duration, rate

#: Codes of failures that are told one by one.
_CODES = 5
#: A larger limit that is likely to do, as a multiple of the one that cut.
_MORE = 4
#: Characters of an example's message.
_MESSAGE = 200


def summary(batch: Batch) -> str:
    """`completed: 39 of 40 succeeded, 1 failed, 1,024 tokens in 3 s (341 tok/s)`."""
    parts = [f"{batch.succeeded:,} of {batch.total:,} succeeded"]
    for name in ("failed", "cancelled", "expired"):
        count = getattr(batch, name)
        if count:
            parts.append(f"{count:,} {name}")
    if batch.sample_counts.truncated:
        parts.append(f"{batch.sample_counts.truncated:,} cut")
    parts.append(count_of(batch.work_tokens, "token"))
    text = f"{batch.state}: " + ", ".join(parts)
    if batch.started_at is not None and batch.finished_at is not None:
        seconds = batch.finished_at - batch.started_at
        tokens = rate(batch.work_tokens / seconds) if seconds > 0 else None
        text += f" in {duration(seconds)}" + (f" ({tokens} tok/s)" if tokens else "")
    return text


def remarks(batch: Batch, failures: Sequence[FailureGroup]) -> list[str]:
    """A line each on cut texts and on failures, the most frequent first; none where all is well."""
    lines = [_truncation(batch)] if batch.sample_counts.truncated else []
    lines += [_failure(group) for group in failures[:_CODES]]
    left = batch.failed - sum(group.count for group in failures[:_CODES])
    if failures and left > 0:
        lines.append(
            f"{left:,} more failed: 'promptmill results {batch.id} --failed' lists them all"
        )
    return lines


def summary_document(batch: Batch, failures: Sequence[FailureGroup]) -> dict[str, Any]:
    """What `--json` adds to a batch. Names here are promises to programs."""
    return {
        "failures": [
            {
                "code": group.code,
                "count": group.count,
                "example": {"id": group.example, "message": group.message},
            }
            for group in failures
        ],
        "remarks": remarks(batch, failures),
    }


def _truncation(batch: Batch) -> str:
    counts = batch.sample_counts
    were = "was" if counts.truncated == 1 else "were"
    broken = "; what is cut does not follow its structure" if _is_structured(batch) else ""
    texts = count_of(counts.samples, "text")
    return f"{counts.truncated:,} of {texts} {were} cut {_limit(batch)}{broken}"


def _limit(batch: Batch) -> str:
    """What cut the texts, as far as their lengths tell, and what to do."""
    shortest, longest = batch.sample_counts.shortest_cut, batch.sample_counts.longest_cut
    for name in ("max_length", "retry_max_tokens", "max_tokens"):
        if name in batch.params:
            limit = int(batch.params[name])
            break
    else:
        name, limit = "max_tokens", DEFAULT_MAX_TOKENS
    if name == "max_length" or shortest == longest == limit:
        default = "" if name in batch.params else ", the default"
        return f"at {name}={limit}{default}: give -p {name}={limit * _MORE}"
    tokens = f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
    return (
        f"at {tokens} tokens, by max_tokens ({limit} where a line has none) or because the "
        "model's context was full: give more, or shorter prompts"
    )


def _is_structured(batch: Batch) -> bool:
    kind = batch.params.get("response_format", {}).get("type", "text")
    return kind != "text" or any(name in batch.params for name in ("regex", "choice", "grammar"))


def _failure(group: FailureGroup) -> str:
    message = " ".join(group.message.split())
    if len(message) > _MESSAGE:
        message = message[: _MESSAGE - 1] + "…"
    return f"{group.count:,} failed with {group.code}, such as {group.example}: {message}"
