"""The tables of states: total, closed, and what their diagram draws."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from db import states
from db.errors import ConflictError
from db.schema import batches, chunks, jobs
from db.states import (
    BATCH_ACTIVE,
    BATCH_TERMINAL,
    BATCH_TRANSITIONS,
    CHUNK_TRANSITIONS,
    JOB_TERMINAL,
    JOB_TRANSITIONS,
    BatchState,
    ChunkState,
    JobState,
    require,
    sources,
)

TABLES: list[tuple[type[StrEnum], Mapping[Any, frozenset[Any]]]] = [
    (BatchState, BATCH_TRANSITIONS),
    (JobState, JOB_TRANSITIONS),
    (ChunkState, CHUNK_TRANSITIONS),
]


def drawing(title: str) -> str:
    """The diagram under this title in the module's docstring."""
    found = re.search(rf"^{title}\n(.*?)(?=^\S|\Z)", states.__doc__ or "", re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


@pytest.mark.parametrize(("kind", "table"), TABLES)
def test_given_a_table_when_walked_then_it_is_total_closed_and_without_loops_of_one(
    kind: type[StrEnum], table: Mapping[Any, frozenset[Any]]
) -> None:
    assert set(table) == set(kind)
    for state, nexts in table.items():
        assert nexts <= set(kind)
        assert state not in nexts


@pytest.mark.parametrize(
    ("kind", "title"), [(BatchState, "Batch"), (JobState, "Job"), (ChunkState, "Chunk")]
)
def test_given_the_diagram_when_read_then_it_shows_every_state_of_the_enum(
    kind: type[StrEnum], title: str
) -> None:
    words = set(re.findall(r"[a-z_]+", drawing(title)))
    assert {state.value for state in kind} <= words


@pytest.mark.parametrize(
    ("title", "table"),
    [("Batch", BATCH_TRANSITIONS), ("Job", JOB_TRANSITIONS), ("Chunk", CHUNK_TRANSITIONS)],
)
def test_given_an_arrow_in_the_diagram_when_looked_up_then_the_table_allows_it(
    title: str, table: Mapping[Any, frozenset[Any]]
) -> None:
    names = "|".join(state.value for state in table)
    arrows = re.findall(rf"({names}) ─(?:─\w+─)?─*► (?=({names}))", drawing(title))
    assert arrows
    for source, target in arrows:
        assert target in table[next(state for state in table if state == source)]


def test_given_terminal_states_when_left_then_only_by_a_retry() -> None:
    assert {state for state in BatchState if not BATCH_TRANSITIONS[state]} == {BatchState.FAILED}
    for state in BATCH_TERMINAL:
        assert BATCH_TRANSITIONS[state] <= {BatchState.IN_PROGRESS}
    for job in JOB_TERMINAL:
        assert JOB_TRANSITIONS[job] <= {JobState.QUEUED}
    assert JOB_TRANSITIONS[JobState.SUCCEEDED] == frozenset()
    assert CHUNK_TRANSITIONS[ChunkState.DONE] == frozenset()


@pytest.mark.parametrize(
    ("table", "ends"), [(BATCH_TRANSITIONS, BATCH_TERMINAL), (JOB_TRANSITIONS, JOB_TERMINAL)]
)
def test_given_any_open_state_when_it_goes_on_then_an_end_can_be_reached(
    table: Mapping[Any, frozenset[Any]], ends: frozenset[Any]
) -> None:
    for start in table:
        reached, before = {start}, 0
        while len(reached) > before:
            before = len(reached)
            reached |= {target for state in reached for target in table[state]}
        assert reached & ends


def test_given_active_batches_when_compared_then_none_of_them_is_terminal() -> None:
    assert not BATCH_ACTIVE & BATCH_TERMINAL
    assert BatchState.PAUSED not in BATCH_ACTIVE


@pytest.mark.parametrize(
    ("kind", "column"),
    [(BatchState, batches.c.state), (JobState, jobs.c.state), (ChunkState, chunks.c.state)],
)
def test_given_the_longest_state_when_stored_then_its_column_is_wide_enough(
    kind: type[StrEnum], column: Any
) -> None:
    assert max(len(state) for state in kind) <= column.type.length


def test_given_a_target_when_its_sources_are_asked_for_then_they_are_those_of_the_table() -> None:
    assert sources(BatchState.VALIDATING) == frozenset()
    assert sources(BatchState.CANCELLED) == {BatchState.CANCELLING}
    for target in BatchState:
        for state in BatchState:
            assert (state in sources(target)) == (target in BATCH_TRANSITIONS[state])


def test_given_every_pair_of_states_when_required_then_only_the_tables_ones_pass() -> None:
    for state in BatchState:
        for target in BatchState:
            if target in BATCH_TRANSITIONS[state]:
                require("b1", state, target)
                continue
            with pytest.raises(ConflictError) as failure:
                require("b1", state, target)
            assert failure.value.message == f"batch b1 is {state}: it can't become {target}"
