"""Bytes to lines: whatever the cuts, the length of a line, or what was packed into it."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import zstandard

from db.errors import InputError
from db.modes import Mode
from producer.reading import rawlines
from producer.reading.columns import TableRules
from producer.reading.csv_table import csv_items
from producer.reading.jsonl import jsonl_items
from producer.reading.keys import NAMES
from producer.reading.lines import Flaw
from producer.reading.plain import text_items
from producer.reading.records import Dialect
from producer.reading.row_prompt import RowPrompt
from producer.reading.streams import decompress, peek


def overlong() -> Iterator[bytes]:
    """Three lines, the second one of 80 MiB."""
    yield b'"one"\n"'
    for _ in range(80):
        yield b"x" * 2**20
    yield b'"\n"three"\n'


@pytest.mark.parametrize(
    ("items", "expected"), [(jsonl_items, ["one", "three"]), (text_items, ['"one"', '"three"'])]
)
def test_given_an_overlong_line_when_read_then_it_is_one_bad_line(
    items: Callable[[Iterator[bytes], str], Iterator[tuple[int, object]]], expected: list[str]
) -> None:
    first, second, third = items(overlong(), "f")
    assert (first, third) == ((1, expected[0]), (3, expected[1]))
    assert second == (2, Flaw("the line is longer than 64 MiB: split or shorten it"))


def test_given_an_overlong_line_in_csv_when_read_then_the_file_is_refused() -> None:
    rules = TableRules(RowPrompt.parse("{one}", None, chat=False), NAMES[Mode.GENERATE])
    with pytest.raises(InputError, match=r"^f:2: the line is longer than 64 MiB: split or"):
        list(csv_items(overlong(), "f", Dialect(",", "csv"), rules))


def test_given_an_overlong_line_when_skipped_then_it_is_not_held() -> None:
    tracemalloc.start()
    try:
        lines = list(rawlines.raw_lines(overlong(), "f", limit=2**20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines[1] == (2, 6, None)
    assert peak < 8 * 2**20


@pytest.mark.parametrize("sizes", [(1,), (2,), (3, 5), (100,)])
def test_given_any_cut_of_the_stream_when_split_then_lines_and_offsets_agree(
    sizes: tuple[int, ...],
) -> None:
    content, start = b"ab\r\n\r123456\nlast", 0
    pieces: list[bytes] = []
    while start < len(content):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(content[start : start + size])
        start += size
    assert list(rawlines.raw_lines(iter(pieces), "f", limit=6)) == [
        (1, 0, b"ab\r\n"),
        (2, 4, b"\r"),
        (3, 5, None),
        (4, 12, b"last"),
    ]


def test_given_a_bomb_when_unpacked_then_pieces_stay_bounded() -> None:
    packed = zstandard.ZstdCompressor(level=1).compress(b"\n" * 2**29)
    assert max(map(len, decompress(iter([packed]), "zst"))) <= 2**27
    packed = gzip.compress(b"\n" * 2**26)
    assert max(map(len, decompress(iter([packed]), "gz"))) <= 2**20


def test_given_a_stream_that_breaks_early_when_peeked_then_nothing_before_is_lost() -> None:
    head, stream = peek(decompress(iter([gzip.compress(b"a\n") + b"\x1f\x8b"]), "gz"))
    assert head == b"a\n"
    assert next(stream) == b"a\n"
