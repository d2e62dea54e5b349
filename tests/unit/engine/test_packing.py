"""Which of a step's sequences are taken alone, which together, and where their tokens are."""

from __future__ import annotations

from itertools import accumulate

import torch

from worker.engine.transformers.packing import plan

#: Where the cache holds each sequence's past, by sequence.
Past = list[list[int]]

NEW = -1


def planned(new: list[int], past: Past, write: list[int]):  # type: ignore[no-untyped-def]
    """A plan for sequences with so many new tokens and such a past."""
    queries = [0, *accumulate(new)]
    keys = [0, *accumulate(count + len(old) for count, old in zip(new, past, strict=True))]
    read = [place for count, old in zip(new, past, strict=True) for place in [*old, *[NEW] * count]]
    return plan(queries, keys, torch.tensor(read), torch.tensor(write), torch.float32)


def test_given_prompts_without_a_past_when_planned_then_nothing_is_read() -> None:
    queries = keys = [0, 3, 4]
    nothing = torch.empty(0, dtype=torch.int64)
    found = plan(queries, keys, nothing, torch.arange(4), torch.float32)
    assert [(one.first, one.last, one.past) for one in found.prompts] == [
        (0, 3, None), (3, 4, None),
    ]  # fmt: skip
    assert not found.groups


def test_given_a_prompt_in_pieces_when_planned_then_its_past_is_read_without_the_new() -> None:
    found = planned([2], [[7, 8, 9]], [10, 11])
    (prompt,) = found.prompts
    assert prompt.past.tolist() == [7, 8, 9]


def test_given_texts_in_the_making_when_planned_then_they_are_together_and_padded() -> None:
    found = planned([1, 4, 1], [[5, 6], [], [1]], [7, 20, 21, 22, 23, 2])
    (group,) = found.groups
    assert group.places.tolist() == [5, 0]  # the shorter one first
    assert group.tokens.unflatten(0, (2, 3)).tolist() == [[1, 2, 0], [5, 6, 7]]
    assert group.mask[:, 0, 0].tolist() == [[0, 0, -torch.inf], [0, 0, 0]]
    assert [(one.first, one.last) for one in found.prompts] == [(1, 5)]


def test_given_texts_of_one_length_when_planned_then_there_is_no_mask() -> None:
    (group,) = planned([1, 1], [[5], [6]], [8, 9]).groups
    assert group.mask is None


def test_given_many_texts_when_planned_then_those_of_like_length_are_together() -> None:
    lengths = [(7 * place) % 40 + 1 for place in range(40)]
    found = planned([1] * 40, [[0] * length for length in lengths], [0] * 40)
    sizes = [group.tokens.shape[0] // group.sequences - 1 for group in found.groups]
    assert [group.sequences for group in found.groups] == [16, 16, 8]
    assert sizes == [16, 32, 40]
    assert sorted(place for group in found.groups for place in group.places.tolist()) == list(
        range(40)
    )
