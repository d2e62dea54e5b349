"""Culprits are found in halves, in a bounded number of runs."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.shared.halving import Halving


def blamed(suspects: int, culprits: set[int]) -> tuple[set[int], int]:
    """Who is found, and in how many runs after the first."""
    halving = Halving(range(suspects))
    found = set(halving.fail())
    runs = 0
    while group := halving.group:
        runs += 1
        if culprits.isdisjoint(group):
            halving.succeed()
        else:
            found.update(halving.fail())
    assert sorted([*halving.passed, *found]) == list(range(suspects))
    return found, runs


@given(st.integers(1, 64), st.integers(0, 63))
def test_one_culprit_is_found_alone(suspects: int, culprit: int) -> None:
    found, runs = blamed(suspects, {culprit % suspects})
    assert found == {culprit % suspects}
    assert runs <= 2 * math.ceil(math.log2(suspects))


@given(st.integers(2, 64), st.sets(st.integers(0, 63), min_size=2, max_size=3))
def test_several_culprits_are_found(suspects: int, culprits: set[int]) -> None:
    culprits = {one % suspects for one in culprits}
    assert blamed(suspects, culprits)[0] == culprits


def test_nobody_is_blamed_for_an_error_that_does_not_come_again() -> None:
    halving = Halving(range(8))
    assert not halving.fail()
    while halving.group:
        halving.succeed()
    assert sorted(halving.passed) == list(range(8))


def test_broken_model_fails_all_without_trying_each() -> None:
    found, runs = blamed(64, set(range(64)))
    assert found == set(range(64))
    assert runs < 70
