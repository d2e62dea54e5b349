"""How a batch is cut: full chunks first, a tapering tail."""

from __future__ import annotations

import pytest

from db.plan import chunk_ranges, full_chunk


def sizes(total: int, chunk_size: int) -> list[int]:
    return [last - first + 1 for first, last in chunk_ranges(total, chunk_size)]


@pytest.mark.parametrize(
    ("total", "chunk_size", "expected"),
    [
        (0, 64, []),
        (1, 64, [1]),
        (4, 64, [4]),
        (10, 64, [4, 4, 2]),
        (10, 1, [1] * 10),
        (7, 3, [3, 3, 1]),
    ],
)
def test_given_a_small_batch_when_it_is_cut_then_the_chunks_are_small(
    total: int, chunk_size: int, expected: list[int]
) -> None:
    assert sizes(total, chunk_size) == expected


def test_given_a_large_batch_when_it_is_cut_then_most_of_it_goes_in_full_chunks() -> None:
    cut = sizes(1_000_000, 64)
    assert sum(cut) == 1_000_000
    assert cut[0] == 64
    assert sum(size for size in cut if size == 64) > 0.99 * 1_000_000
    assert cut == sorted(cut, reverse=True)


def test_given_the_last_chunks_when_two_workers_share_them_then_neither_gets_much_more() -> None:
    assert max(sizes(1_000, 64)[-8:]) <= 4


def test_given_no_size_when_a_batch_grows_then_its_full_chunks_do_up_to_a_bound() -> None:
    sizes = [full_chunk(total) for total in (1, 65_536, 200_000, 1_000_000, 10**7, 10**9)]
    assert sizes == [64, 128, 390, 1024, 1024, 1024]
