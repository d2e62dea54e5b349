"""The sampler in NumPy against the one in PyTorch: the same token at the same place of the draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.engine.test_sampler import FILTERS, random_logits
from worker.engine.kerashub import sampler
from worker.engine.shared.rows import NOT_FINITE, Row
from worker.engine.transformers import sampler as torch_sampler

DRAWS = 500


def drawn(filters: dict[str, Any]) -> list[Row]:
    """Rows all over the distribution."""
    return [Row(**filters, uniform=(n + 0.5) / DRAWS) for n in range(DRAWS)]


@pytest.mark.parametrize("filters", [*FILTERS, {"temperature": 0.0}], ids=str)
def test_given_filters_when_drawn_across_the_cdf_then_tokens_equal_pytorchs(
    filters: dict[str, Any],
) -> None:
    logits = random_logits(1)[0]
    rows = drawn(filters)
    expected = torch_sampler.choose(logits.expand(DRAWS, -1), rows).tolist()
    assert [sampler.choose(logits.numpy(), row) for row in rows] == expected


def test_given_a_nucleus_wider_than_the_guess_when_drawn_then_it_is_still_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = random_logits(1)[0].numpy()
    rows = drawn({"temperature": 3.0, "top_p": 0.95})
    expected = [sampler.choose(logits, row) for row in rows]
    monkeypatch.setattr(sampler, "NUCLEUS_GUESS", 4)
    assert [sampler.choose(logits, row) for row in rows] == expected


@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.5}], ids=str)
@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-3])
def test_given_a_temperature_near_zero_when_chosen_then_it_is_greedy(
    temperature: float, filters: dict[str, Any]
) -> None:
    logits = random_logits(1)[0].numpy()
    row = Row(temperature=temperature, uniform=0.7, **filters)
    assert sampler.choose(logits, row) == logits.argmax()


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("filters", [{"min_p": 0.5}, {"top_k": 3}, {"top_p": 0.5}], ids=str)
def test_given_an_extreme_uniform_when_drawn_then_a_filtered_token_never_comes(
    extreme: float, filters: dict[str, Any]
) -> None:
    logits = random_logits(1)[0]
    allowed = set(torch_sampler.choose(logits.expand(DRAWS, -1), drawn(filters)).tolist())
    assert sampler.choose(logits.numpy(), Row(**filters, uniform=extreme)) in allowed


def test_given_equal_logits_when_cut_by_top_k_then_exactly_the_first_ones_stay() -> None:
    logits = np.zeros(50, np.float32)
    assert {sampler.choose(logits, row) for row in drawn({"top_k": 3})} == {0, 1, 2}


@pytest.mark.parametrize("row", [Row(uniform=0.5), Row(top_k=2, uniform=0.5), Row(0.0)], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_given_logits_that_are_not_finite_when_chosen_then_it_says_so(bad: float, row: Row) -> None:
    assert sampler.choose(np.full(9, bad, np.float32), row) == NOT_FINITE
    some = np.zeros(9, np.float32)
    some[4] = bad
    expected = sampler.choose(some, row) == NOT_FINITE
    assert expected == (bad != -np.inf)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_given_logits_when_chosen_then_they_are_not_changed(filters: dict[str, Any]) -> None:
    logits = random_logits(1)[0].numpy()
    before = logits.copy()
    sampler.choose(logits, Row(**filters, uniform=0.3))
    assert (logits == before).all()


@pytest.mark.parametrize("alternatives", [0, 4, 400])
def test_given_logprobs_when_asked_then_they_equal_pytorchs(alternatives: int) -> None:
    logits = random_logits(1)
    own, ids, values = torch_sampler.logprobs(logits, torch.tensor([7]), alternatives)
    token, top = sampler.logprobs(logits[0].numpy(), 7, alternatives)
    assert token == pytest.approx(own[0], abs=1e-5)
    assert [one for one, _ in top] == ids[0]
    assert [value for _, value in top] == pytest.approx(values[0], abs=1e-5)
