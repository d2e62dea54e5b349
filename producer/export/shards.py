"""Results in numbered files of a folder, which a second run goes on with.

    part-00000.parquet, part-00001.parquet, …   each whole or not there at all
    export.json                                 what they are of: written first
    manifest.json                               the files and what made them: written last

A folder without a manifest is not complete: the same command keeps the files that are there and
writes the others. A folder of another batch, or of other options, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from db.errors import UsageError
from db.pages import Page
from db.records import Batch
from producer.export.layout import Layout
from producer.export.metadata import write_metadata
from producer.export.provenance import Contributions, file_document
from producer.export.refusals import explained

PLAN, MANIFEST = "export.json", "manifest.json"
#: Of each key of a plan, what a folder with another value has.
OTHER = {
    "batch": "of another batch",
    "finished_at": "of the batch before it was run again",
    "counts": "of the batch before it was run again",
    "columns": "with other columns",
    "rows_per_file": "with another --rows-per-file",
    "format": "in another format",
    "only": "of other records: --succeeded, --failed or --truncated differ",
    "as_finished": "in another order",
    "raw": "with another --raw",
}
_UNKNOWN = "with other options"
#: What a killed run may leave.
_PART = ".promptmill-*.part"


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the files go, and what they are of."""

    path: Path
    suffix: str
    rows_per_file: int
    #: Everything that decides what is in the files.
    plan: Mapping[str, Any]

    def file(self, number: int) -> Path:
        return self.path / f"part-{number:05}.{self.suffix}"


def plan_of(
    batch: Batch, layout: Layout, options: Mapping[str, Any], rows_per_file: int
) -> dict[str, Any]:
    """What the files of a finished batch are of; a retry makes another one of it."""
    return {
        "object": "export",
        "batch": batch.id,
        "finished_at": batch.finished_at,
        "counts": [batch.succeeded, batch.failed, batch.cancelled, batch.expired],
        "columns": [column.name for column in layout.columns],
        "rows_per_file": rows_per_file,
        **options,
    }


def write_shards(
    pages: Iterator[Page],
    folder: Folder,
    batch: Batch,
    layout: Layout,
    write: Callable[[Iterator[Page], str], int],
    *,
    in_order: bool,
) -> tuple[int, int]:
    """Write the files that are not there, and then the manifest; how many records and files.

    `write` writes pages to a file, whole or not at all. Raises UsageError for a folder of
    something else, and OutputError.
    """
    _prepare(folder)
    made_by = Contributions(in_order=in_order)
    rows = _Rows(made_by.watched(pages))
    files: list[dict[str, Any]] = []
    while not files or rows.are_left():
        path = folder.file(len(files))
        part = rows.take(folder.rows_per_file)
        count = sum(map(len, part)) if path.exists() else write(part, str(path))
        with explained(str(path)):
            files.append({"file": path.name, "records": count, "bytes": path.stat().st_size})
    records = sum(file["records"] for file in files)
    document = file_document(batch, layout, made_by, records=records)
    write_metadata(str(folder.path / MANIFEST), {**document, "files": files})
    return records, len(files)


def _prepare(folder: Folder) -> None:
    """Make the folder, or check that it is of the same plan."""
    plan = folder.path / PLAN
    with explained(str(folder.path)):
        folder.path.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in folder.path.iterdir())
        stored = plan.read_bytes() if PLAN in names else None
    if stored is None:
        leftovers = {path.name for path in folder.path.glob(_PART)}
        if set(names) - leftovers:
            raise UsageError(f"{folder.path}: has other files: give a new or an empty folder")
    else:
        differing = _differing(stored, folder.plan)
        if differing:
            raise UsageError(
                f"{folder.path}: has an export {OTHER.get(differing[0], _UNKNOWN)}: give another "
                "folder, or remove this one"
            )
    with explained(str(folder.path)):
        for left in folder.path.glob(_PART):
            left.unlink(missing_ok=True)
        (folder.path / MANIFEST).unlink(missing_ok=True)
    if stored is None:
        write_metadata(str(plan), folder.plan)


def _differing(stored: bytes, plan: Mapping[str, Any]) -> list[str]:
    """The keys of a stored plan that are not as in this one."""
    try:
        before = orjson.loads(stored)
    except ValueError:
        return ["plan"]
    now = orjson.loads(orjson.dumps(dict(plan)))
    if not isinstance(before, dict):
        return ["plan"]
    return [key for key in (now | before) if before.get(key) != now.get(key)]


class _Rows:
    """Pages, cut where a file ends."""

    def __init__(self, pages: Iterator[Page]) -> None:
        self._pages = pages
        self._next: Page | None = None

    def are_left(self) -> bool:
        if self._next is None:
            self._next = next(self._pages, None)
        return self._next is not None

    def take(self, count: int) -> Iterator[Page]:
        """The next `count` rows, or what is left; to be read to its end."""
        while count > 0 and self.are_left():
            page = self._next
            assert page is not None  # noqa: S101 - as are_left says
            self._next = page[count:] if len(page) > count else None
            page = page[:count]
            count -= len(page)
            yield page
