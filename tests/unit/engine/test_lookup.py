"""What a text says next if it goes on as it did before."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from worker.engine.transformers.assisted.lookup import Lookup


def looked_up(token_ids: Sequence[int], count: int) -> list[int]:
    lookup = Lookup()
    lookup.read(token_ids)
    return lookup.following(count)


@pytest.mark.parametrize("token_ids", [[], [1], [1, 2], [1, 2, 3, 4, 5], [5, 1, 7, 1]])
def test_given_nothing_that_came_before_when_looked_up_then_there_is_no_draft(
    token_ids: list[int],
) -> None:
    assert looked_up(token_ids, 4) == []


def test_given_a_run_that_came_before_when_looked_up_then_what_followed_it_is_drafted() -> None:
    assert looked_up([1, 2, 3, 4, 5, 9, 1, 2], 3) == [3, 4, 5]


def test_given_a_run_that_came_twice_when_looked_up_then_the_later_counts() -> None:
    assert looked_up([1, 2, 3, 1, 2, 4, 1, 2], 1) == [4]


def test_given_a_longer_run_when_looked_up_then_it_counts_more_than_a_later_one() -> None:
    assert looked_up([7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2], 1) == [3]


def test_given_a_text_that_repeats_itself_when_looked_up_then_the_draft_goes_on_doing_so() -> None:
    assert looked_up([1, 2, 3, 1, 2, 3, 1, 2], 7) == [3, 1, 2, 3, 1, 2, 3]
    assert looked_up([6, 6, 6], 4) == [6, 6, 6, 6]


def test_given_a_text_read_in_parts_when_looked_up_then_it_is_as_if_read_at_once() -> None:
    token_ids = [1, 2, 3, 4, 9, 2, 3, 4, 8, 1, 2]
    lookup = Lookup()
    for end, token_id in enumerate(token_ids, start=1):
        lookup.read([token_id])
        assert len(lookup) == end
        assert lookup.following(5) == looked_up(token_ids[:end], 5)
