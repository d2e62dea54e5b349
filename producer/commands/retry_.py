"""`promptmill retry`."""

from __future__ import annotations

import click

from producer.commands.command import CheckingCommand, option_faults
from producer.commands.options import batch_argument, json_option


@click.command("retry", cls=CheckingCommand)
@batch_argument
@click.option("--job", type=click.IntRange(1), metavar="LINE", help="Only this job.")
@json_option
def command(batch: str, job: int | None, as_json: bool) -> None:
    """Queue the failed jobs of BATCH again; each has all its attempts again.

    Lines that were invalid stay failed: they would be invalid again.

    \b
    Examples:
      promptmill retry bk3v9xq2h7mz
      promptmill retry bk3v9xq2h7mz --job 42
    """
    from db.errors import UsageError
    from db.ids import job_id
    from db.wording import count_of
    from producer.client import Client
    from producer.display import emit_json

    faults = option_faults()
    with Client() as client:
        found = faults.of(client.reference, batch, unique=True)
        reference = faults.checked(found)
        if job is not None and reference.line is not None:
            raise UsageError(f"'{batch}' is a job already: leave out --job {job}")
        uid, line = reference.uid, reference.line if job is None else job
        count = client.retry(uid if line is None else job_id(uid, line))
    if as_json:
        emit_json({"batch": uid, "retried": count})
    else:
        why = (
            ""
            if count
            else ": none failed that could pass another time; cancelled and expired ones stay so"
        )
        click.echo(f"{uid}: {count_of(count, 'job')} queued again{why}")
