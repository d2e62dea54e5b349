"""A claimed chunk: every job is answered once, and it ends once."""

from __future__ import annotations

from db.records import Claim, ClaimedJob
from tests.support.crowd import at_once
from worker.run import Ending, Run


def a_run(lines: int = 3, token: str = "t") -> Run:
    jobs = tuple(ClaimedJob(line, "{}", 0) for line in range(1, lines + 1))
    claim = Claim(7, 1, "b1", token, {}, jobs, now=100.0)
    return Run(claim, received_at=90.0)


def test_given_a_run_when_its_jobs_are_answered_then_each_counts_once() -> None:
    run = a_run(2)
    first, second = run.open_requests
    job = run.answered(first)
    assert job is not None
    assert job.line == 1
    assert run.answered(first) is None
    assert run.answered("b1-1:another") is None
    assert run.open_requests == [second]


def test_given_an_ended_run_when_answered_then_the_answer_comes_too_late() -> None:
    run = a_run()
    assert run.end(Ending.LOST)
    assert run.answered(run.request_id(1)) is None


def test_given_many_threads_when_they_settle_its_jobs_then_one_of_them_is_the_last() -> None:
    run = a_run(64)
    assert sorted(at_once([run.settled] * 64)) == [False] * 63 + [True]


def test_given_many_threads_when_they_end_it_then_one_does_and_all_waiters_hear_of_it() -> None:
    run = a_run()
    endings = list(Ending) * 4
    ended = at_once([lambda e=e: run.end(e) for e in endings])  # type: ignore[misc]
    assert ended.count(True) == 1
    assert run.wait() is endings[ended.index(True)]
    assert at_once([run.wait] * 4) == [run.ending] * 4


def test_given_a_chunk_that_comes_back_when_claimed_again_then_its_requests_have_other_ids() -> (
    None
):
    assert a_run(token="a").request_id(1) != a_run(token="b").request_id(1)


def test_given_clocks_that_differ_when_a_run_begins_then_it_knows_by_how_much() -> None:
    assert a_run().clock_offset == 10.0


def test_given_a_retry_or_a_cut_when_the_run_ends_then_there_is_something_left_to_do() -> None:
    assert a_run().finished
    retried, cut = a_run(), a_run()
    retried.retry_attempt = 1
    cut.cut_short = True
    assert not retried.finished
    assert not cut.finished
