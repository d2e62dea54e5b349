"""What holds for any prompts and any bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from db.errors import InputError, UsageError
from producer.reading import BadLine, Line, Template, parse, read
from producer.reading.rawlines import raw_lines
from producer.reading.texts import Refusal

#: What a prompt may be: any text of Unicode scalars but NUL.
prompts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)

#: What can stand in a .txt file: one line, not blank.
text_lines = (
    st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]))
    .filter(lambda text: text.strip())
    .filter(lambda text: not text.startswith("\ufeff"))
)

packings: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def as_jsonl(items: list[str]) -> bytes:
    return "".join(json.dumps({"prompt": item}) + "\n" for item in items).encode()


def as_bare_jsonl(items: list[str]) -> bytes:
    return "\r\n".join(json.dumps(item, ensure_ascii=False) for item in items).encode()


def as_table(items: list[str], **options: Any) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, **options)
    writer.writerows([["prompt"], *([item] for item in items)])
    return file.getvalue().encode()


def as_tsv(items: list[str]) -> bytes:
    return as_table(items, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)


def as_parquet(items: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"prompt": pa.array(items, pa.string())}), file, row_group_size=3)
    return file.getvalue()


def read_bytes(content: bytes, name: str, **options: Any) -> list[Line | BadLine]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return list(read([str(path)], **options))


def texts(found: list[Line | BadLine]) -> list[Any]:
    return [line.request if isinstance(line, Line) else line.message for line in found]


@pytest.mark.parametrize("packing", packings)
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", as_jsonl),
        ("a.json", as_bare_jsonl),
        ("a.csv", as_table),
        ("a.tsv", as_tsv),
        ("a.parquet", as_parquet),
    ],
)
@settings(max_examples=25, deadline=None)
@given(items=st.lists(prompts, min_size=1, max_size=10))
def test_given_any_prompts_when_written_and_read_then_they_are_the_same(
    name: str, write: Callable[[list[str]], bytes], packing: str, items: list[str]
) -> None:
    options = {"quoting": "csv"} if name == "a.tsv" else {}
    found = read_bytes(packings[packing](write(items)), name + packing, **options)
    assert texts(found) == [{"prompt": item} for item in items]
    if "json" not in name:
        assert [line.number for line in found] == list(range(1, len(items) + 1))


@pytest.mark.parametrize("packing", packings)
@settings(max_examples=25, deadline=None)
@given(
    items=st.lists(text_lines, min_size=1, max_size=10), end=st.sampled_from(["\n", "\r\n", "\r"])
)
def test_given_any_lines_when_read_as_text_then_each_is_a_prompt(
    packing: str, items: list[str], end: str
) -> None:
    content = packings[packing](end.join(items).encode())
    assert texts(read_bytes(content, "a.txt" + packing)) == [{"prompt": item} for item in items]


names = st.sampled_from(
    ["a", "a.jsonl", "a.txt", "a.csv", "a.tsv", "a.parquet", "a.x", "a.txt.gz", "a.csv.zst"]
)


def only_refuses(content: bytes, name: str, **options: Any) -> None:
    """Whatever the file holds: requests, bad lines, or one InputError in one line."""
    found: list[Line | BadLine] = []
    told = ""
    try:
        found = read_bytes(content, name, **options)
    except InputError as error:
        told = error.message
    assert bool(found) != bool(told)
    assert "\n" not in told
    for line in found:
        if isinstance(line, BadLine):
            assert "\n" not in line.message
        else:
            json.dumps(line.request, ensure_ascii=False).encode()


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200), name=names, template=st.sampled_from([None, "{text}"]))
@example(b"PAR1", "a.parquet", None)
@example(b"PAR1PAR1PAR1", "a.parquet", None)
@example(b"\x1f\x8b", "a", None)
@example(b"prompt\n\r\r", "a.csv", None)
@example(b"[" * 5000, "a.x", None)
@example(b'"' + b"[" * 5000, "a.jsonl", None)
def test_given_any_bytes_when_read_then_nothing_else_is_raised(
    content: bytes, name: str, template: str | None
) -> None:
    only_refuses(content, name, template=template)


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    kind=st.sampled_from(
        [("a.jsonl.gz", as_jsonl), ("a.csv.zst", as_table), ("a.parquet", as_parquet)]
    ),
)
def test_given_a_sound_file_with_damage_when_read_then_nothing_else_is_raised(
    data: st.DataObject, kind: tuple[str, Callable[[list[str]], bytes]]
) -> None:
    name, write = kind
    sound = packings.get("." + name.rpartition(".")[2], bytes)(write(["one", "two", "three"]))
    damaged = bytearray(sound)
    for place in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=3)):
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(sound)))
    only_refuses(bytes(damaged[:cut]), name)
    only_refuses(bytes(damaged), name)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        *("prompt", "messages", "custom_id", "model", "params", "method", "url", "body"),
        *("n", "stop", "seed", "temperature", "logprobs", "max_tokens", "max_length"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(item=json_values | st.dictionaries(keys, json_values, max_size=5))
def test_given_any_value_when_parsed_then_it_is_a_storable_request_or_a_reason(
    item: object,
) -> None:
    found = parse(item, source="items", number=1)
    if isinstance(found, BadLine):
        assert found.reason
        assert "\n" not in found.message
    else:
        assert ("prompt" in found.request) != ("messages" in found.request)
        assert "\\u0000" not in json.dumps(found.request)
        json.dumps(found.request, ensure_ascii=False).encode()


class Guarded(str):
    """A cell whose attributes must stay out of every prompt."""

    __slots__ = ("secret",)

    def __init__(self, text: str) -> None:
        self.secret = "SECRET"

    def __getitem__(self, key: object) -> str:
        return "SECRET"

    def __format__(self, spec: str) -> str:
        return "SECRET"

    def __repr__(self) -> str:
        return "SECRET"


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(list("{}x.[]!:r0_ ")) | st.characters(), max_size=20))
@example("{x.secret}")
@example("{x[0]}")
@example("{x!r}")
@example("{x:s}")
@example("{x:{x.secret}}")
@example("{x.__class__.__init__.__globals__}")
def test_given_any_template_when_rendered_then_attributes_stay_out_of_reach(text: str) -> None:
    try:
        rendered = Template.parse(text).render({"x": Guarded("cell")})
    except (UsageError, Refusal):
        return
    assert rendered == text.replace("{{", "{").replace("}}", "}").replace("{x}", "cell") or (
        "SECRET" not in rendered
    )


@settings(max_examples=300, deadline=None)
@given(
    content=st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r"]), max_size=30).map(b"".join),
    cuts=st.lists(st.integers(0, 40), max_size=10),
    limit=st.integers(1, 6),
)
def test_given_any_cuts_of_a_stream_when_split_then_its_lines_are_the_same(
    content: bytes, cuts: list[int], limit: int
) -> None:
    edges = [0, *sorted(cuts), len(content)]
    pieces = [content[start:end] for start, end in pairwise(edges)]
    expected: list[tuple[int, int, bytes | None]] = []
    offset = 0
    for number, line in enumerate(re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", content), 1):
        expected.append((number, offset, line if len(line) <= limit else None))
        offset += len(line)
    assert list(raw_lines(iter(pieces), "f", limit)) == expected
