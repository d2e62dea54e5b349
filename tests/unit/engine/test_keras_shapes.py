"""Which shapes the engine keras pads to: few, never too small, never beyond the model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.kerashub import buckets

LENGTH = st.integers(1, 4000)


@given(LENGTH, st.integers(0, 4000))
def test_given_any_prompt_in_the_context_when_padded_then_it_fits_and_so_does_the_model(
    longest: int, room: int
) -> None:
    limit = longest + room
    assert longest <= buckets.prompt_width(longest, limit) <= limit
    assert longest <= buckets.cache_length(longest, limit) <= limit
    assert longest <= buckets.prompt_width(longest, None)


def test_given_all_lengths_up_to_a_thousand_when_padded_then_there_are_few_shapes() -> None:
    widths = {buckets.prompt_width(length, 1000) for length in range(1, 1001)}
    lengths = {buckets.cache_length(length, 1000) for length in range(1, 1001)}
    assert widths == {32, 64, 128, 256, 512, 1000}
    assert lengths == {128, 256, 512, 1000}
    assert {buckets.batch_rows(live, 32) for live in range(1, 33)} == {1, 4, 16, 32}
    assert {buckets.batch_rows(live, 8) for live in range(1, 9)} == {1, 4, 8}


@given(st.integers(1, 300), st.integers(1, 300))
def test_given_any_batch_when_filled_up_then_all_its_samples_have_a_row(
    live: int, capacity: int
) -> None:
    assert live <= buckets.batch_rows(live, capacity) <= max(live, capacity)


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_given_any_batch_when_it_shrinks_then_every_live_row_stays(done: list[bool]) -> None:
    kept = buckets.rows_to_keep(done)
    live = {row for row, over in enumerate(done) if not over}
    if kept is None:
        assert buckets.batch_rows(max(1, len(live)), len(done)) == len(done)
    else:
        assert live <= set(kept)
        assert len(set(kept)) == len(kept) < len(done)


def test_given_a_batch_of_one_when_done_then_it_stays() -> None:
    assert buckets.rows_to_keep([False]) is None
    assert buckets.rows_to_keep([True]) is None
