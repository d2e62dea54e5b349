"""`promptmill status`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from db.modes import Mode
from db.records import Attempt, Batch, Job, Pace
from producer.commands.command import Command
from producer.commands.options import complete_batches, json_option


@click.command("status", cls=Command)
@click.argument("id", shell_complete=complete_batches)
@json_option
def command(id: str, as_json: bool) -> None:  # noqa: A002 - click names it after the argument
    """Show where the batch ID stands, or one job of it (ID-LINE).

    ID is a batch's id or its name; of several batches of one name, the newest is shown.

    \b
    Examples:
      promptmill status bk3v9xq2h7mz
      promptmill status nightly
      promptmill status bk3v9xq2h7mz-42 --json
    """
    from producer.client import Client
    from producer.display import echo_wrapped, emit_json, printable
    from producer.documents import batch_document, job_document, pace_document
    from producer.summary import remarks, summary_document

    with Client() as client:
        found = client.status(id)
        failures = client.failures(found.id) if isinstance(found, Batch) else []
        pace = client.pace(found) if isinstance(found, Batch) and not found.finished else None
    if isinstance(found, Batch) and as_json:
        emit_json(
            {
                **batch_document(found),
                "pace": pace and pace_document(found, pace),
                **summary_document(found, failures),
            }
        )
    elif isinstance(found, Batch):
        _show_batch(found, pace)
        for remark in remarks(found, failures):
            echo_wrapped(printable(remark), indent=2)
    elif as_json:
        emit_json(job_document(found))
    else:
        _show_job(found)


def _show_batch(batch: Batch, pace: Pace | None) -> None:
    from producer.display import clock, facts

    share = f" ({batch.run_count * 100 // batch.total} %)" if batch.total else ""
    facts(
        [
            ("batch", batch.id),
            ("name", batch.name),
            ("model", batch.model),
            ("mode", batch.mode if batch.mode is not Mode.GENERATE else None),
            ("state", batch.state),
            ("done", f"{batch.run_count:,} of {batch.total:,}{share}"),
            ("now", _now(batch, pace) if pace is not None else None),
            ("succeeded", f"{batch.succeeded:,}"),
            ("failed", f"{batch.failed:,}"),
            ("cancelled", f"{batch.cancelled:,}" if batch.cancelled else None),
            ("expired", f"{batch.expired:,}" if batch.expired else None),
            ("tokens", f"{batch.prompt_tokens:,} in, {batch.completion_tokens:,} out"),
            ("cut", _cut(batch)),
            ("created", clock(batch.created_at)),
            ("started", clock(batch.started_at)),
            ("finished", clock(batch.finished_at)),
            ("expires", clock(batch.expires_at) if batch.expires_at else None),
        ]
    )


def _now(batch: Batch, pace: Pace) -> str | None:
    """How it goes: rate and time left, or what it waits for."""
    from db.wording import count_of
    from producer.activity import activity, speed, stored_left

    words = activity(batch, pace)
    if words is not None:
        return words
    named = pace.working > 0 and pace.stops_at is None
    workers = [f"on {count_of(pace.working, 'worker')}"] if named else []
    parts = [part for part in speed(batch, pace, stored_left(batch, pace)) if "failed" not in part]
    return ", ".join(parts + workers) or None


def _cut(batch: Batch) -> str | None:
    counts = batch.sample_counts
    return f"{counts.truncated:,} of {counts.samples:,} texts" if counts.truncated else None


#: Characters of a column's name and value.
_SHOWN = 60


def _origin(job: Job) -> list[tuple[str, object]]:
    """What its text was made with."""
    made = job.provenance
    if made is None or job.params is None:
        return []
    return [
        ("model", made.model),
        ("revision", made.revision),
        ("weights", made.weights),
        ("tokenizer", made.tokenizer),
        ("adapter", made.adapter),
        ("engine", ", ".join(filter(None, [f"{made.engine} {made.engine_version}", made.backend]))),
        ("device", ", ".join(filter(None, [made.device, made.hardware, made.dtype]))),
        ("seed", job.seed),
        ("params", ", ".join(f"{name}={value}" for name, value in job.params.items())),
    ]


def _values(job: Job) -> str | None:
    """The values of its input row; None where there are none."""
    from db.exact_json import dumps
    from producer.display import printable

    texts = [
        f"{name}={value if isinstance(value, str) else dumps(value).decode()}"
        for name, value in job.columns.items()
    ]
    cut = [text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…" for text in texts]
    return printable(", ".join(cut)) or None


def _show_attempt(attempt: Attempt) -> None:
    from producer.display import clock, echo_wrapped, printable

    where = f" on {attempt.worker}" if attempt.worker else ""
    error = printable(f"{attempt.error_code}: {attempt.error_message}")
    what = "failed" if attempt.samples is None else "rejected"
    drawn = ", ".join(f"{name}={value}" for name, value in (attempt.params or {}).items())
    asked = f" ({drawn})" if drawn else ""
    echo_wrapped(f"{what}{where} at {clock(attempt.ended_at)}{asked}: {error}", indent=2)
    for sample in attempt.samples or ():
        click.echo(f"    {sample['text']!r} ({sample['finish_reason']})")


def _earlier(job: Job) -> Sequence[Attempt]:
    """The attempts besides the one whose error the job itself has."""
    last = job.history[-1] if job.history else None
    if last is None or last.samples is not None:
        return job.history
    same = (last.error_code, last.error_message) == (job.error_code, job.error_message)
    return job.history[:-1] if same else job.history


def _show_job(job: Job) -> None:
    from producer.display import calls_in_words, clock, facts, measure, printable

    facts(
        [
            ("job", job.id),
            ("custom_id", job.custom_id),
            ("state", job.state),
            ("attempts", job.attempts),
            ("worker", job.worker),
            ("started", clock(job.started_at)),
            ("finished", clock(job.finished_at)),
            ("tokens", f"{job.prompt_tokens or 0:,} in, {job.completion_tokens or 0:,} out"),
            ("error", f"{job.error_code}: {job.error_message}" if job.error_code else None),
            *_origin(job),
            ("columns", _values(job)),
        ]
    )
    for attempt in _earlier(job):
        _show_attempt(attempt)
    for sample in job.samples:
        if sample["text"] is None:
            found = [sample.get(name) for name in ("logprob", "perplexity", "embedding")]
            click.echo(f"\n{measure(*found)}")
            continue
        number = f" {sample['sample']}" if len(job.samples) > 1 else ""
        if "reasoning" in sample:
            click.echo(f"\nthinking{number}:\n{printable(sample['reasoning'])}")
        if sample["text"] or "tool_calls" not in sample:
            click.echo(f"\ntext{number} ({sample['finish_reason']}):\n{printable(sample['text'])}")
        if "tool_calls" in sample:
            calls = printable(calls_in_words(sample["tool_calls"]))
            click.echo(f"\ncalls{number} ({sample['finish_reason']}):\n{calls}")
