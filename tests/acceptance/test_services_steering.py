"""Pause, resume, cancel, retry, delete, priorities and models, by the command line."""

from __future__ import annotations

import signal

from db.states import BatchState, JobState
from tests.acceptance.mill import Mill, echoing, pid_of
from tests.support.processes import eventually

#: 400 jobs of this take a worker some 4 s.
_SLOW = echoing(latency=0.1, capacity=10)


def test_given_a_running_batch_when_paused_and_resumed_then_it_stands_still_and_goes_on(
    mill: Mill,
) -> None:
    mill.worker(_SLOW)
    batch = mill.submit(1200)
    mill.until(batch, lambda found: found.done > 0, "begun")

    assert mill.json("pause", batch)["state"] == "paused"
    # The worker has let go once it is idle: a cheap batch that comes later runs through.
    other = mill.submit(3)
    mill.finished(other)
    held = mill.client.batch(batch)
    assert held.state == BatchState.PAUSED
    assert held.done < 1200
    assert mill.run("pause", batch).returncode == 0  # twice is once

    assert mill.json("resume", batch)["state"] == "in_progress"
    mill.finished(batch)
    mill.shares(batch)
    assert {result.attempts for result in mill.client.results(batch)} == {1}
    again = mill.run("resume", batch)
    assert again.returncode == 2
    assert again.stderr == (
        f"promptmill: batch {batch} is completed: only a paused batch can be resumed\n"
    )


def test_given_a_running_batch_when_cancelled_then_what_is_done_stays_and_can_be_deleted(
    mill: Mill,
) -> None:
    mill.worker(_SLOW)
    batch = mill.submit(2000)
    mill.until(batch, lambda found: found.done > 0, "begun")
    refused = mill.run("delete", batch, "--yes")
    assert refused.returncode == 2
    assert f"'promptmill cancel {batch}' first" in refused.stderr

    counts = mill.json("cancel", batch)["counts"]

    assert counts["cancelled"] > 0
    assert counts["succeeded"] + counts["cancelled"] == 2000
    states = [line["state"] for line in mill.lines("results", batch)]
    assert states.count("succeeded") == counts["succeeded"]
    assert mill.run("cancel", batch).returncode == 0  # twice is once
    assert mill.json("status", batch)["counts"] == counts

    assert mill.run("delete", batch, stdin="n\n").returncode == 1  # asked, and not confirmed
    unheard = mill.run("delete", batch, stdin="")
    assert (unheard.returncode, unheard.stderr.splitlines()[-1]) == (
        2, "promptmill: nobody answered: give --yes to delete without a question",
    )  # fmt: skip
    assert mill.ok("delete", batch, "--yes") == f"{batch} deleted\n"
    gone = mill.run("status", batch)
    assert gone.returncode == 2
    assert gone.stderr.startswith(f"promptmill: no batch {batch}: ")


def test_given_failed_jobs_when_retried_then_only_they_run_again(mill: Mill) -> None:
    faulty = mill.worker(echoing(faults=True))
    file = mill.prompts(["fine", "[[fail]] one", "[[fail]] two", "[[retry]] three"])
    batch = mill.ok("submit", file, "--model", mill.model).strip()
    found = mill.until(batch, lambda found: found.finished, "finished")
    assert (found.succeeded, found.failed) == (1, 3)
    assert mill.job(batch, 4).attempts == 3
    faulty.kill()
    mill.worker(echoing())  # this one takes the markers for words

    assert mill.json("retry", batch, "--job", "2") == {"batch": batch, "retried": 1}
    found = mill.finished(batch)
    assert (found.succeeded, found.failed) == (2, 2)
    assert mill.job(batch, 3).state == JobState.FAILED
    assert mill.ok("retry", batch) == f"{batch}: 2 jobs queued again\n"
    found = mill.finished(batch)
    assert (found.succeeded, found.failed) == (4, 0)
    assert mill.json("retry", batch)["retried"] == 0
    mill.shares(batch)


def test_given_a_large_batch_when_an_urgent_one_comes_later_then_it_overtakes(mill: Mill) -> None:
    mill.worker(_SLOW)
    large = mill.submit(1200, "--priority", "1")
    mill.until(large, lambda found: found.done > 0, "begun")

    urgent = mill.submit(20, "--priority", "9")

    first, last = mill.finished(urgent).finished_at, mill.finished(large).finished_at
    assert first is not None
    assert last is not None
    assert first < last
    assert mill.json("status", urgent)["priority"] == 9


def test_given_two_models_on_one_redis_when_both_have_work_then_each_worker_does_its_own(
    mill: Mill,
) -> None:
    other = f"{mill.model}-other"
    ours, theirs = mill.start_worker(), mill.start_worker(PROMPTMILL_MODEL=other)
    ours.ready(), theirs.ready()
    first, second = mill.submit(50), mill.submit(50, "--model", other)
    mill.finished(first)
    mill.finished(second)
    assert mill.shares(first) == {str(ours.process.pid): 50}
    assert mill.shares(second) == {str(theirs.process.pid): 50}


def test_given_no_worker_for_a_model_when_one_starts_then_its_waiting_batch_runs(
    mill: Mill,
) -> None:
    batch = mill.submit(5)
    idle = mill.run("workers")
    assert (idle.stdout, idle.returncode) == ("", 0)
    assert idle.stderr.startswith("no worker is alive: start one with")
    worker = mill.worker()
    mill.finished(batch)
    (told,) = mill.lines("workers", "--json")
    assert told["pid"] == worker.process.pid
    assert pid_of(told["name"]) == str(worker.process.pid)
    worker.kill()
    eventually(lambda: not mill.client.workers(), what="it is missed")


def test_given_ctrl_c_when_a_batch_is_watched_then_it_says_that_the_batch_goes_on(
    mill: Mill,
) -> None:
    batch = mill.submit(3)
    watching = mill.background("watch", batch)
    assert watching.stderr is not None
    assert "no worker serves it yet" in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=30)
    assert watching.returncode == 128 + signal.SIGINT
    assert "Ctrl-C ended the waiting, not the batch" in said
    assert f"follow it again: promptmill watch {batch}" in said
    mill.worker()
    assert mill.finished(batch).succeeded == 3
