"""Tables choose their columns by the width there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from producer.columns import Column, broken_at_spaces, drawn, fitted, shortened

COLUMNS = [
    Column("batch"),
    Column("name", rank=2, shorten="middle"),
    Column("state"),
    Column("model", rank=1, shorten="middle"),
    Column("created", rank=3, right=True),
]
MODEL = "/home/someone/projects/models/meta-llama/Llama-3.2-1B-Instruct"
ROWS = [["bk3v9xq2h7mz", "nightly", "in_progress", MODEL, "5 min ago"]]


def table(width: int) -> list[str]:
    return drawn(*fitted(COLUMNS, ROWS, width))


def test_wide_terminal_shows_everything_whole() -> None:
    title, row = table(140)
    assert title.split() == ["batch", "name", "state", "model", "created"]
    assert MODEL in row


def test_narrow_terminal_shortens_the_model_in_the_middle() -> None:
    title, row = table(80)
    assert title.split() == ["batch", "name", "state", "model", "created"]
    model = row.split()[3]
    assert model.startswith("/home")
    assert model.endswith("Llama-3.2-1B-Instruct"[-12:])
    assert "…" in model
    assert cell_len(row) == 80


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (64, ["batch", "name", "state", "model", "created"]),
        (54, ["batch", "name", "state", "model"]),
        (44, ["batch", "state", "model"]),
        (30, ["batch", "state"]),
    ],
)
def test_least_important_columns_are_left_out_first(width: int, titles: list[str]) -> None:
    title, row = table(width)
    assert title.split() == titles
    assert cell_len(row) <= width


def test_required_columns_are_never_cut() -> None:
    assert table(10)[1] == "bk3v9xq2h7mz  in_progress"


@pytest.mark.parametrize(
    ("text", "where", "short"),
    [
        ("abcdefghij", None, "abcdefghij"),
        ("abcdefg", "middle", "abcdefg"),
        ("abcdefghij", "end", "abcdef…"),
        ("abcdefghij", "middle", "ab…ghij"),
        ("abcdefghij", "start", "…efghij"),
        ("日本語日本語", "end", "日本語…"),
        ("日本語日本語", "start", "…日本語"),
    ],
)
def test_text_is_shortened_where_it_may_be(text: str, where: object, short: str) -> None:
    assert shortened(text, 7, where) == short  # type: ignore[arg-type]


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z", "M"]), max_size=60),
                min_size=5, max_size=5), st.integers(40, 160))  # fmt: skip
def test_table_fits_unless_required_columns_do_not(cells: list[str], width: int) -> None:
    required = cell_len(cells[0]) + cell_len(cells[2]) + 2 + 14
    for line in drawn(*fitted(COLUMNS, [cells], width)):
        assert cell_len(line) <= max(width, required)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("state  in progress now", ["state  in", "  progress", "  now"]),
        ("日本語 日本語", ["日本語", "  日本語"]),
        ("a-word-that-is-too-long b", ["a-word-that-is-too-long", "  b"]),
        ("    b", ["    b"]),
    ],
)
def test_lines_are_broken_at_spaces_by_their_cells(text: str, lines: list[str]) -> None:
    assert broken_at_spaces(text, 10, indent=2) == lines
