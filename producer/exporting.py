"""Results of a batch to a file or to standard output, for `results` and `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.modes import Mode, as_mode
from db.records import Batch
from db.throughput import for_throughput
from producer.display import for_people
from producer.export import check_mode, check_target, format_of, is_stdout, write_pages
from producer.progress import counting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from db.pages import Page
    from producer.client import Client


def check_output(
    output: str | None,
    given_format: str | None,
    *,
    option: str = "--format",
    mode: str = Mode.GENERATE,
) -> None:
    """Raise UsageError or OutputError now for what would fail after hours of work.

    `option`: where the caller's users give the format; `mode`: the batch's.
    """
    # A folder has no format either, and that it is one says more.
    check_target(output)
    check_mode(as_mode(mode), format_of(output, given_format, option=option))


def export(
    client: Client,
    batch: Batch,
    *,
    output: str | None,
    given_format: str | None,
    as_finished: bool = False,
    failed_only: bool = False,
    with_prompt: bool = False,
    raw: bool = False,
) -> int:
    """Write what the batch has finished so far; the records written. Raises OutputError."""
    check_target(output)
    chosen = format_of(output, given_format)
    check_mode(batch.mode, chosen)
    results = client.results(
        batch.id,
        order="finished" if as_finished else "input",
        failed_only=failed_only,
        # An OpenAI line says whether it answers a chat: that is in the request.
        with_request=with_prompt or chosen == "openai",
    )
    # A counter would run through the records where both go to one terminal.
    quiet = is_stdout(output) and for_people()
    with counting("writing", quiet=quiet) as on_progress, for_throughput():
        pages = _counted(results.pages(), on_progress)
        beside = client.database.dialect == "sqlite"
        return write_pages(pages, output, format=chosen, batch=batch, raw=raw, beside=beside)


def _counted(pages: Iterator[Page], tell: Callable[[int], None]) -> Iterator[Page]:
    count = 0
    for page in pages:
        yield page
        count += len(page)
        tell(count)
