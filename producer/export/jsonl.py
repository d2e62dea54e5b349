"""JSON Lines: an object a sample.

Written a page at a time: a column becomes JSON in one go, what is the same in the whole page
becomes part of a template, and a record is the template with its own cells.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import orjson

from db.exact_json import dumps, fragment
from db.input_columns import ABSENT, JSON
from db.pages import MadePage, Page
from db.records import Batch, Result
from producer.export.answer_fields import FieldType
from producer.export.fields import iso
from producer.export.layout import (
    FieldSource,
    InputSource,
    Layout,
    OutputColumn,
    RecordOptions,
    layout_of,
)
from producer.export.record_columns import RecordColumn, Type
from producer.export.records import Records

#: What orjson puts between the elements of a list, and in none of them: a newline within a text
#: is written as `\n`.
_BETWEEN = b",\n  "
_LIST = slice(len(b"[\n  "), -len(b"\n]"))

_Cells = Sequence[bytes]


def lines(pages: Iterable[Page], layout: Layout) -> Generator[tuple[int, bytes]]:
    """How many records, and they."""
    for page in pages:
        yield len(page), page_lines(page, layout)


def documents(results: Iterable[Result], layout: Layout) -> Generator[dict[str, Any]]:
    """The records as a program reads them."""
    for result in results:
        yield orjson.loads(page_lines(MadePage([result]), layout))


def document(
    result: Result, batch: Batch | None = None, options: RecordOptions | None = None
) -> dict[str, Any]:
    """The record of one result."""
    layout = layout_of(batch, options or RecordOptions(), documents=True)
    return next(documents([result], layout))


def page_lines(page: Page, layout: Layout) -> bytes:
    """The names of the keys are promises to programs: `producer.export.record_columns`."""
    records = Records(page, layout)
    template, columns = b"", []
    for column in layout.columns:
        part, cells = _column(records, column)
        template += part
        if cells is not None:
            columns.append(cells)
    template += b"}\n"
    if not columns:
        return (b"{" + (template % ())[1:]) * len(page)
    rows = zip(*columns, strict=True)
    if template.startswith(b","):
        template = b"{" + template[1:]
        return b"".join(map(template.__mod__, rows))
    # The first key may be absent, and the comma in front is then the next one's.
    return b"".join([b"{" + (template % row)[1:] for row in rows])


def _column(records: Records, column: OutputColumn) -> tuple[bytes, _Cells | None]:
    """Its part of the template; and of each record what fills it, if anything does."""
    source = column.source
    values = records.values(column)
    if isinstance(source, RecordColumn) and source.type is Type.TIME:
        values = list(map(iso, values))
    opening = b",%b:" % orjson.dumps(column.name)
    written = _writer_of(source)
    first = values[0]
    if (first is None or isinstance(first, str)) and values.count(first) == len(values):
        if first is None and isinstance(source, RecordColumn) and source.sparse:
            return b"", None
        same = opening + (b"null" if first is None else written(first))
        return same.replace(b"%", b"%%"), None
    nothing = None if isinstance(source, RecordColumn) else ABSENT
    if nothing in values and _may_lack(source):
        return b"%b", [
            b"" if value is nothing else opening + (b"null" if value is None else written(value))
            for value in values
        ]
    part = opening.replace(b"%", b"%%") + b"%b"
    if _is_plain(source):
        return part, _json(values)
    return part, [b"null" if value is None else written(value) for value in values]


def _may_lack(source: RecordColumn | InputSource | FieldSource) -> bool:
    """Whether a record may lack the key."""
    return source.sparse if isinstance(source, RecordColumn) else True


def _json(values: Sequence[Any]) -> _Cells:
    """The JSON of each."""
    return orjson.dumps(values, fragment, orjson.OPT_INDENT_2)[_LIST].split(_BETWEEN)


def _writer_of(source: RecordColumn | InputSource | FieldSource) -> Callable[[Any], bytes]:
    """What makes JSON of one value that is not None."""
    if isinstance(source, InputSource):
        return str.encode if source.column.type == JSON else dumps
    if isinstance(source, FieldSource):
        return str.encode if source.field.type is FieldType.JSON else dumps
    return _WRITERS.get(source.type, dumps)


_WRITERS: dict[Type, Callable[[Any], bytes]] = {
    Type.JSON: str.encode,
    Type.TOKENS: str.encode,
    Type.VECTOR: lambda vector: orjson.dumps(vector.tolist()),
}

_PLAIN = frozenset({Type.TEXT, Type.INTEGER, Type.LONG, Type.NUMBER, Type.TIME})
_NESTED = (JSON, "list<", "large_list<", "fixed_size_list<", "struct<", "map<", "dictionary<")


def _is_plain(source: RecordColumn | InputSource | FieldSource) -> bool:
    """Whether orjson takes the values of a column as they are, in one go."""
    if isinstance(source, RecordColumn):
        return source.type in _PLAIN
    if isinstance(source, InputSource):
        return not source.column.type.startswith(_NESTED)
    return source.field.type is not FieldType.JSON
