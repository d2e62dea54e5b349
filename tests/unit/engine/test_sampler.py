"""The sampler against transformers' own warpers, and its draw against the distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from worker.engine.transformers import sampler
from worker.engine.transformers.sampler import (
    BLOCK,
    NOT_FINITE,
    Row,
    choose,
    likeliest,
    logprobs,
    uniform,
)

VOCABULARY = 400
SEEN = (3, 5, 8, 13)


def random_logits(rows: int, vocabulary: int = VOCABULARY, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(rows, vocabulary, generator=generator) * scale


def reference(logits: torch.Tensor, row: Row) -> torch.Tensor:
    """The distribution that transformers would draw this row from: `[vocabulary]`."""
    steps: list[Any] = []
    if row.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(row.repetition_penalty))
    steps.append(TemperatureLogitsWarper(row.temperature))
    if row.top_k:
        steps.append(TopKLogitsWarper(row.top_k))
    if row.top_p < 1:
        steps.append(TopPLogitsWarper(row.top_p))
    if row.min_p:
        steps.append(MinPLogitsWarper(row.min_p))
    scores: torch.Tensor = LogitsProcessorList(steps)(torch.tensor([SEEN]), logits.clone()[None])
    return scores[0].softmax(dim=-1)


FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": VOCABULARY + 5},
    {"top_p": 0.05},
    {"top_p": 0.9},
    {"top_p": 0.999, "temperature": 4.0},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"repetition_penalty": 1.9, "seen": SEEN},
    {"repetition_penalty": 0.5, "seen": SEEN},
    {
        "temperature": 1.7,
        "top_k": 60,
        "top_p": 0.8,
        "min_p": 0.05,
        "repetition_penalty": 1.4,
        "seen": SEEN,
    },
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_given_filters_when_drawn_across_the_cdf_then_shares_equal_transformers(
    filters: dict[str, Any],
) -> None:
    logits = random_logits(1)[0]
    draws = 4000
    rows = [Row(**filters, uniform=(n + 0.5) / draws) for n in range(draws)]
    tokens = torch.cat(
        [
            choose(logits.expand(len(part), -1), part)
            for part in (rows[at : at + 2000] for at in range(0, draws, 2000))
        ]
    )
    shares = tokens.bincount(minlength=VOCABULARY) / draws
    # Evenly spaced uniforms hit each token in proportion to its probability, to one draw.
    assert (shares - reference(logits, Row(**filters))).abs().max() <= 2 / draws


def test_given_rows_of_every_sort_when_together_then_each_gets_what_it_gets_alone() -> None:
    logits = random_logits(len(FILTERS) + 1)
    rows = [Row(**filters, uniform=uniform(1, 0, n)) for n, filters in enumerate(FILTERS)]
    rows.append(Row(temperature=0.0))
    together = choose(logits, rows).tolist()
    alone = [choose(logits[n : n + 1], [row]).item() for n, row in enumerate(rows)]
    assert together == alone


def test_given_a_nucleus_wider_than_the_guess_when_drawn_then_it_is_still_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = random_logits(1)
    rows = [Row(temperature=3.0, top_p=0.95, uniform=u / 50) for u in range(50)]
    expected = choose(logits.expand(50, -1), rows)
    monkeypatch.setattr(sampler, "NUCLEUS_GUESS", 4)
    assert choose(logits.expand(50, -1), rows).equal(expected)


def test_given_temperature_zero_when_chosen_then_it_is_the_likeliest() -> None:
    logits = random_logits(5)
    assert choose(logits, [Row(temperature=0.0)] * 5).equal(logits.argmax(dim=-1))


@pytest.mark.parametrize("temperature", [1e-40, 1e-8, 1e-3])
def test_given_a_temperature_near_zero_when_chosen_then_it_is_greedy(temperature: float) -> None:
    logits = random_logits(4)
    rows = [Row(temperature=temperature, top_p=0.9 if n % 2 else 1.0) for n in range(4)]
    assert choose(logits, rows).equal(logits.argmax(dim=-1))


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("filters", [{"min_p": 0.5}, {"top_k": 3}, {"top_p": 0.5}], ids=str)
def test_given_an_extreme_uniform_when_drawn_then_a_filtered_token_never_comes(
    extreme: float, filters: dict[str, Any]
) -> None:
    logits = random_logits(1)
    token = int(choose(logits, [Row(**filters, uniform=extreme)]))
    assert reference(logits[0], Row(**filters))[token] > 0


@pytest.mark.parametrize("vocabulary", [3 * BLOCK, 3 * BLOCK + 1], ids=["blocks", "no blocks"])
def test_given_equal_logits_when_the_likeliest_is_looked_for_then_it_is_the_first(
    vocabulary: int,
) -> None:
    logits = random_logits(200, vocabulary, scale=0.5).round()  # four or five values in all
    best, tokens = likeliest(logits)
    assert best.equal(logits.amax(dim=-1))
    assert tokens.equal((logits == best.unsqueeze(1)).int().argmax(dim=-1))


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 3 * BLOCK], ids=["no blocks", "blocks"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_given_logits_that_are_not_finite_when_chosen_then_only_that_row_says_so(
    bad: float, vocabulary: int
) -> None:
    logits = random_logits(3, vocabulary)
    logits[1] = bad
    tokens = choose(logits, [Row(uniform=0.5), Row(top_k=2, uniform=0.5), Row(temperature=0.0)])
    assert tokens[1] == NOT_FINITE
    assert tokens[[0, 2]].min() >= 0


def test_given_logits_when_chosen_then_they_are_not_changed() -> None:
    logits = random_logits(len(FILTERS))
    before = logits.clone()
    choose(logits, [Row(**filters, uniform=0.3) for filters in FILTERS])
    assert logits.equal(before)


def test_given_logprobs_when_asked_then_they_equal_log_softmax() -> None:
    logits = random_logits(3)
    own, ids, values = logprobs(logits, torch.tensor([1, 2, 3]), alternatives=4)
    expected = logits.log_softmax(dim=-1)
    assert own == pytest.approx([expected[n, n + 1].item() for n in range(3)], abs=1e-5)
    assert ids == expected.topk(4).indices.tolist()
    assert values[0] == pytest.approx(expected[0].topk(4).values.tolist(), abs=1e-5)


def test_given_the_same_arguments_when_uniform_then_the_same_number() -> None:
    # Written down, as a worker of any version and machine must repeat a seed's text.
    assert uniform(0, 0, 0) == uniform(0, 0, 0)
    assert uniform(42, 1, 7) == pytest.approx(EXPECTED_UNIFORM, abs=0)


def test_given_other_arguments_when_uniform_then_numbers_spread_evenly() -> None:
    numbers = [
        uniform(seed, index, at) for seed in range(20) for index in range(5) for at in range(50)
    ]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) >= 0
    assert max(numbers) < 1
    counts, _ = torch.histogram(torch.tensor(numbers), bins=10, range=(0.0, 1.0))
    assert counts.min() > 420  # 500 expected in each tenth; 3.8 standard deviations
    assert counts.max() < 580


EXPECTED_UNIFORM = 0.3360530620497355


@pytest.mark.parametrize("vocabulary", [64, 100, 1000])
def test_given_bits_when_unpacked_on_a_device_or_a_cpu_then_the_same_tokens_are_forbidden(
    vocabulary: int,
) -> None:
    width = -(-vocabulary // 32)
    masks = torch.randint(-(2**31), 2**31, (5, width), dtype=torch.int64).int()
    here = sampler.forbidden(masks, vocabulary)
    assert here.shape == (5, vocabulary)
    assert here.equal(sampler.forbidden_on_device(masks, vocabulary))
    assert bool(here[3, 37]) is not bool(int(masks[3, 1]) >> 5 & 1)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_given_allowed_tokens_when_chosen_then_it_is_one_of_them(
    temperature: float, top_p: float
) -> None:
    logits = torch.randn(3, 64)
    before = logits.clone()
    only = np.zeros(2, dtype=np.int32)
    only[1] = 1 << 4  # token 36
    rows = [
        Row(temperature, top_p=top_p, uniform=0.9, allowed=only),
        Row(temperature, top_p=top_p, uniform=0.2),
        Row(temperature, top_p=top_p, uniform=0.1, allowed=only),
    ]
    tokens = choose(logits, rows)
    assert tokens[0] == tokens[2] == 36
    assert tokens[1] == choose(logits[1:2], rows[1:2])
    assert logits.equal(before)
