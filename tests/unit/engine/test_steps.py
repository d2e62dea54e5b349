"""What a step holds, and how large its CUDA graph is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.transformers.steps import (
    Prompt,
    graph_sizes,
    padded,
    sequence_of_tokens,
    split,
    worth_reading,
)


def test_given_ongoing_sequences_and_prompts_when_split_then_prompts_follow() -> None:
    ongoing, prompts = split([(5, 1), (9, 1), (0, 3), (4, 2), (7, 1)])
    assert ongoing == 2
    assert prompts == [Prompt(2, 5, 0), Prompt(5, 7, 4), Prompt(7, 8, 7)]


def test_given_a_prompt_of_one_token_when_split_then_it_is_a_prompt() -> None:
    assert split([(0, 1)]) == (0, [Prompt(0, 1, 0)])


def test_given_a_step_when_asked_then_each_token_knows_its_sequence() -> None:
    prompts = [Prompt(2, 5, 0), Prompt(5, 7, 4)]
    found = sequence_of_tokens(2, prompts, torch.device("cpu"))
    assert found.tolist() == [0, 1, 2, 2, 2, 3, 3]


@given(most=st.integers(1, 2000), data=st.data())
def test_given_any_number_when_padded_then_a_graph_of_that_size_is_captured(
    most: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, most))
    size = padded(count, most)
    assert count <= size <= most
    assert size in graph_sizes(most)
    assert size < 2 * count + 64


def test_given_a_limit_when_sized_then_there_are_few_graphs_the_largest_first() -> None:
    assert graph_sizes(200) == [200, 192, 128, 64, 32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize(
    ("running", "waiting", "worth"),
    [
        (0, 5, True),  # nothing runs
        (63, 9, False),  # one place is free
        (57, 9, False),
        (56, 9, True),  # an eighth
        (62, 2, True),  # all that waits
        (64, 1, False),  # no place
    ],
)
def test_given_prompts_that_wait_when_asked_then_they_are_read_together(
    running: int, waiting: int, worth: bool
) -> None:
    assert worth_reading(running, waiting, 64) is worth
