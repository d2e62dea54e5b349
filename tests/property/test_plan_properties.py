"""Every line of any batch is in exactly one chunk, and the tail tapers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from db.plan import chunk_ranges

totals = st.integers(0, 20_000)
chunk_sizes = st.integers(1, 10_000)


@given(totals, chunk_sizes)
def test_given_any_batch_when_cut_then_its_lines_are_covered_in_order_and_once(
    total: int, chunk_size: int
) -> None:
    expected = 1
    for first, last in chunk_ranges(total, chunk_size):
        assert first == expected
        assert first <= last
        assert last - first + 1 <= chunk_size
        expected = last + 1
    assert expected == total + 1


@given(totals, chunk_sizes)
def test_given_any_batch_when_cut_then_no_chunk_is_larger_than_one_before_it(
    total: int, chunk_size: int
) -> None:
    sizes = [last - first + 1 for first, last in chunk_ranges(total, chunk_size)]
    assert sizes == sorted(sizes, reverse=True)


@given(totals, chunk_sizes)
def test_given_any_batch_when_cut_then_a_chunk_holds_little_of_what_is_left(
    total: int, chunk_size: int
) -> None:
    for first, last in chunk_ranges(total, chunk_size):
        left = total - first + 1
        size = last - first + 1
        assert size <= max(4, left / 32)
        # ... and only the very last chunk is smaller than it must be.
        assert size >= min(4, chunk_size, left)
