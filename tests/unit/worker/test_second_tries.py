"""Asking again: what is asked next, what a job gets in the end, and what is kept. No engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.sampling import SamplingParams, seed_of_try
from worker.engine.protocol import Completed, Failed, Request, Sample
from worker.second_tries import Tried, Verdict, may_ask_again, next_try, tried, verdict

ENGINE = "transformers"
LENGTH, STOP = "length", "stop"
BROKE = Failed("engine_error", "it broke", retriable=True)

#: Text and finish_reason of a sample; its tokens are the limit where that cut it.
Text = tuple[str, str]


def a_request(**params: Any) -> Request:
    return Request("b-1:t", SamplingParams.model_validate(params), seed=7, prompt="p")


def answer(request: Request, *texts: Text, tokens: int | None = None) -> Completed:
    limit = request.params.max_tokens or 128
    made = (
        Sample(at, text, reason, tokens or (limit if reason == LENGTH else 3))
        for at, (text, reason) in enumerate(texts)
    )
    return Completed(tuple(made), prompt_tokens=5, started_at=50.0 + limit)


def asked(
    request: Request, answers: Callable[[Request], Completed | Failed], engine: str = ENGINE
) -> list[Tried]:
    """All tries of the job, with an engine that answers so."""
    tries: list[Tried] = []
    following: Request | None = request
    while following is not None:
        tries.append(tried(following, answers(following), ended_at=90.0))
        following = next_try(tries, engine)
        assert len(tries) < 100
    return tries


def sequence(tries: Sequence[Tried]) -> list[tuple[int, int | None]]:
    """Seed and limit of each."""
    return [(one.request.seed, one.request.params.max_tokens) for one in tries]


def codes(found: Verdict) -> list[str]:
    return [kept.code for kept in found.kept]


def test_given_no_such_parameter_when_asked_then_nothing_is_asked_again() -> None:
    request = a_request(max_tokens=8, regex="a+")
    assert not may_ask_again(request)
    assert may_ask_again(a_request(retry_max_tokens=200))
    assert may_ask_again(a_request(regex="a+", retry_invalid=1))
    tries = asked(request, lambda one: answer(one, ("b", STOP)))
    assert len(tries) == 1
    assert verdict(tries) == Verdict(tries[0].outcome, ())


def test_given_a_text_that_is_cut_when_asked_again_then_limits_double_to_the_bound_and_seed_stays(
) -> None:  # fmt: skip
    request = a_request(max_tokens=100, retry_max_tokens=500)
    tries = asked(request, lambda one: answer(one, (f"x{one.params.max_tokens}", LENGTH)))
    assert sequence(tries) == [(7, 100), (7, 200), (7, 400), (7, 500)]
    assert [one.request.id for one in tries] == ["b-1:t", "b-1:t#2", "b-1:t#3", "b-1:t#4"]
    found = verdict(tries)
    assert isinstance(found.outcome, Completed)
    assert found.outcome.samples == tries[-1].samples
    assert found.outcome.started_at == 150.0  # of the first try
    assert codes(found) == ["truncated"] * 3
    assert found.kept[0].message == "the text was cut after 100 tokens"


def test_given_no_limit_when_cut_then_it_doubles_from_the_default() -> None:
    tries = asked(a_request(retry_max_tokens=300), lambda one: answer(one, ("x", LENGTH)))
    assert sequence(tries) == [(7, None), (7, 256), (7, 300)]


def test_given_a_text_that_becomes_whole_when_asked_again_then_it_is_the_result() -> None:
    def ends_at_300(one: Request) -> Completed:
        return answer(one, ("all", STOP if (one.params.max_tokens or 0) >= 300 else LENGTH))

    tries = asked(a_request(max_tokens=100, retry_max_tokens=5000), ends_at_300)
    assert [limit for _, limit in sequence(tries)] == [100, 200, 400]
    found = verdict(tries)
    assert isinstance(found.outcome, Completed)
    assert found.outcome.samples[0].finish_reason == STOP
    assert codes(found) == ["truncated", "truncated"]


def test_given_a_text_that_the_context_cut_when_judged_then_a_larger_limit_is_not_asked() -> None:
    request = a_request(max_tokens=100, retry_max_tokens=500)
    tries = asked(request, lambda one: answer(one, ("x", LENGTH), tokens=60))
    assert len(tries) == 1
    # It grew once, and then reached the context.
    tries = asked(
        request, lambda one: answer(one, ("x", LENGTH), tokens=min(150, one.params.max_tokens or 0))
    )
    assert [limit for _, limit in sequence(tries)] == [100, 200]


@pytest.mark.parametrize(
    ("counts", "limits"),
    [
        # It does not count at all: up to the bound.
        ([0, 0, 0], [100, 200, 400]),
        # What it counts is less than the limit (it thinks too), and grows.
        ([40, 90, 190], [100, 200, 400]),
        # It does not grow: the limit is another one.
        ([60, 60], [100, 200]),
    ],
)
def test_given_an_endpoint_that_counts_otherwise_when_cut_then_it_is_asked_while_that_helps(
    counts: list[int], limits: list[int]
) -> None:
    left = iter(counts)

    def counted(_: Request) -> Completed:
        return Completed((Sample(0, "x", LENGTH, next(left)),), 5, 50.0)

    tries = asked(a_request(max_tokens=100, retry_max_tokens=400), counted, "openai")
    assert [limit for _, limit in sequence(tries)] == limits


def test_given_a_broken_structure_when_asked_again_then_each_seed_is_another_and_the_last_one_fails(
) -> None:  # fmt: skip
    request = a_request(max_tokens=9, regex="a+", retry_invalid=3)
    tries = asked(request, lambda one: answer(one, ("secret", STOP)))
    assert sequence(tries) == [(7, 9), *((seed_of_try(7, number), 9) for number in (1, 2, 3))]
    found = verdict(tries)
    assert isinstance(found.outcome, Failed)
    assert (found.outcome.code, found.outcome.retriable) == ("invalid_structure", False)
    assert found.outcome.message.startswith(
        "the text breaks its structure (it does not follow the regular expression), after 4 answers"
    )
    assert "secret" not in found.outcome.message
    assert codes(found) == ["invalid_structure"] * 4
    assert found.kept[-1].message == found.outcome.message


def test_given_a_greedy_request_when_broken_then_no_seed_is_wasted_but_on_an_endpoint() -> None:
    request = a_request(temperature=0, regex="a+", retry_invalid=2)
    for engine, number in ((ENGINE, 1), ("openai", 3)):
        assert len(asked(request, lambda one: answer(one, ("b", STOP)), engine)) == number


def test_given_a_structure_that_is_cut_when_judged_then_it_is_length_and_no_new_seed() -> None:
    request = a_request(max_tokens=9, retry_invalid=3, response_format={"type": "json_object"})
    tries = asked(request, lambda one: answer(one, ('{"a', LENGTH)))
    assert len(tries) == 1
    found = verdict(tries)
    assert isinstance(found.outcome, Completed)
    assert found.outcome.samples[0].finish_reason == LENGTH


def test_given_an_answer_that_calls_a_function_when_judged_then_it_has_no_structure() -> None:
    request = a_request(regex="a+", retry_invalid=3)
    assert len(asked(request, lambda one: answer(one, ("", "tool_calls")))) == 1


def test_given_both_when_cut_and_then_broken_then_the_larger_limit_stays_for_the_new_seeds(
) -> None:  # fmt: skip
    def cut_then_broken(one: Request) -> Completed:
        if one.seed == seed_of_try(7, 2):
            return answer(one, ("aa", STOP))
        return answer(one, ("b", STOP if one.params.max_tokens == 36 else LENGTH))

    request = a_request(max_tokens=9, retry_max_tokens=100, regex="a+", retry_invalid=5)
    tries = asked(request, cut_then_broken)
    assert sequence(tries) == [
        (7, 9), (7, 18), (7, 36), (seed_of_try(7, 1), 36), (seed_of_try(7, 2), 36),
    ]  # fmt: skip
    found = verdict(tries)
    assert isinstance(found.outcome, Completed)
    assert found.outcome.samples[0].text == "aa"
    assert codes(found) == ["truncated"] * 2 + ["invalid_structure"] * 2


def test_given_several_samples_when_asked_again_then_good_ones_of_earlier_tries_stay() -> None:
    def by_limit(one: Request) -> Completed:
        limit = one.params.max_tokens
        reason = {10: (STOP, LENGTH, LENGTH), 20: (LENGTH, STOP, LENGTH)}.get(limit or 0)
        return answer(
            one, *((f"{at} of {limit}", why) for at, why in enumerate(reason or (STOP,) * 3))
        )

    tries = asked(a_request(max_tokens=10, n=3, retry_max_tokens=99), by_limit)
    found = verdict(tries)
    assert isinstance(found.outcome, Completed)
    assert [one.text for one in found.outcome.samples] == ["0 of 10", "1 of 20", "2 of 40"]
    assert [one.index for one in found.outcome.samples] == [0, 1, 2]
    # The last one too: of its samples only one is the result.
    assert codes(found) == ["truncated", "truncated", "surplus"]
    assert found.kept[0].message == (
        "sample 1 was cut after 10 tokens; sample 2 was cut after 10 tokens"
    )
    assert found.kept[2].message == "an earlier try had given sample 0, 1"


def test_given_several_samples_when_one_stays_broken_then_the_job_fails_with_every_text_kept(
) -> None:  # fmt: skip
    request = a_request(n=2, regex="a+", retry_invalid=1)
    found = verdict(asked(request, lambda one: answer(one, ("a", STOP), ("b", STOP))))
    assert isinstance(found.outcome, Failed)
    assert found.outcome.message.startswith("sample 1 breaks its structure")
    assert [[one.text for one in kept.tried.samples] for kept in found.kept] == [["a", "b"]] * 2


def test_given_a_later_try_that_fails_when_the_text_was_only_cut_then_it_is_the_result() -> None:
    def breaks(one: Request) -> Completed | Failed:
        return BROKE if one.params.max_tokens == 40 else answer(one, ("x", LENGTH))

    found = verdict(asked(a_request(max_tokens=10, retry_max_tokens=99), breaks))
    assert isinstance(found.outcome, Completed)
    assert found.outcome.samples[0].completion_tokens == 20
    assert codes(found) == ["truncated", "engine_error"]


def test_given_a_later_try_that_fails_when_the_text_was_broken_then_the_job_has_its_failure(
) -> None:  # fmt: skip
    request = a_request(regex="a+", retry_invalid=3)
    found = verdict(
        asked(request, lambda one: BROKE if one.seed != 7 else answer(one, ("b", STOP)))
    )
    assert found.outcome == BROKE
    assert codes(found) == ["invalid_structure", "engine_error"]


def test_given_a_first_try_that_fails_when_judged_then_it_is_a_failure_like_any_other() -> None:
    tries = asked(a_request(retry_max_tokens=200), lambda _: BROKE)
    assert verdict(tries) == Verdict(BROKE, ())


def test_given_a_seed_when_new_ones_are_made_then_they_never_change_between_releases() -> None:
    assert seed_of_try(7, 0) == 7
    assert seed_of_try(7, 1) == SEED_OF_7_AT_1
    made = {seed_of_try(seed, number) for seed in range(50) for number in range(11)}
    assert len(made) == 550
    assert all(0 <= one < 2**63 for one in made)


SEED_OF_7_AT_1 = 2776804601523485429


@given(
    limit=st.integers(1, 50),
    more=st.integers(1, 500),
    seeds=st.integers(1, 10),
    rolls=st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=40),
)
def test_given_any_answers_when_asked_then_tries_are_bounded_and_each_sample_is_the_best_of_them(
    limit: int, more: int, seeds: int, rolls: list[list[int]]
) -> None:
    kinds = (("a", STOP), ("b", STOP), ("a", LENGTH))
    left = iter(rolls)

    def rolled(one: Request) -> Completed:
        return answer(one, *(kinds[roll] for roll in next(left, [0, 0, 0])))

    request = a_request(
        max_tokens=limit, retry_max_tokens=limit + more, n=3, regex="a", retry_invalid=seeds
    )
    tries = asked(request, rolled)
    limits = [one.request.params.max_tokens or 0 for one in tries]
    assert limits == sorted(limits)
    assert limits[-1] <= limit + more
    assert len({one.request.seed for one in tries}) <= seeds + 1
    assert len(set(sequence(tries))) == len(tries)
    found = verdict(tries)
    good = [any(one.flaws[at] is None for one in tries) for at in range(3)]
    broken = [not ok and tries[-1].samples[at].finish_reason == STOP for at, ok in enumerate(good)]
    if any(broken):
        assert isinstance(found.outcome, Failed)
        assert len(found.kept) == len(tries)
        return
    assert isinstance(found.outcome, Completed)
    for at, sample in enumerate(found.outcome.samples):
        assert sample.index == at
        assert (sample.finish_reason == STOP) == good[at]
    # Every text is somewhere: in the history, or in the result.
    kept = {id(one.tried) for one in found.kept}
    for one in tries:
        assert id(one) in kept or one.samples == found.outcome.samples
