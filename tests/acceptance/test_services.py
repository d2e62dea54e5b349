"""PostgreSQL, Redis and worker processes: a batch from submit to results, and all its views."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from db.states import JobState
from tests.acceptance.mill import Mill, echoing, pid_of
from tests.support.processes import eventually

#: Jobs that two workers share, and what each takes of a worker (jobs at once, seconds).
_SHARED = 2_000
_STEADY = echoing(latency=0.05, capacity=16)


def test_given_two_workers_when_a_batch_runs_then_they_share_it_evenly(mill: Mill) -> None:
    first, second = mill.start_worker(_STEADY), mill.start_worker(_STEADY)
    for worker in (first, second):
        worker.ready()

    batch = mill.submit(_SHARED)
    watched = mill.run("watch", batch)

    assert watched.returncode == 0
    assert watched.stdout.startswith(f"{batch} completed: 2,000 of 2,000 succeeded")
    shares = mill.shares(batch)
    assert set(shares) == {str(first.process.pid), str(second.process.pid)}
    assert all(0.4 * _SHARED <= share <= 0.6 * _SHARED for share in shares.values()), shares
    assert all(result.attempts == 1 for result in mill.client.results(batch))

    alive = {worker["pid"]: worker for worker in mill.lines("workers", "--json")}
    for worker in (first, second):
        told = alive[worker.process.pid]
        assert (told["model"], told["device"], told["engine"]) == (mill.model, "cpu", "echo")
    assert sum(told["jobs"] for told in alive.values()) <= _SHARED


def test_given_a_stuck_batch_when_asked_then_each_view_shows_where_it_stands(mill: Mill) -> None:
    # Given one job done, one failed, one running for ever and one that waits behind it
    mill.env["PROMPTMILL_CHUNK_SIZE"] = "1"
    worker = mill.worker(echoing(capacity=1, faults=True))
    file = mill.prompts(["fine words", "[[fail]]", "[[hang]]", "patience"])
    batch = mill.ok("submit", file, "--model", mill.model, "--name", "stuck").strip()
    mill.until(batch, lambda found: found.done == 2, "half done")
    eventually(lambda: mill.job(batch, 3).state == JobState.RUNNING, what="line 3 runs")

    # Then every view tells the same
    told = mill.json("status", batch)
    assert (told["state"], told["name"]) == ("in_progress", "stuck")
    assert told["counts"] == {
        "total": 4, "done": 2, "succeeded": 1, "failed": 1, "cancelled": 0, "expired": 0,
    }  # fmt: skip
    assert [mill.json("status", f"{batch}-{line}")["state"] for line in (1, 2, 3, 4)] == [
        "succeeded", "failed", "running", "queued",
    ]  # fmt: skip
    assert mill.json("list")["id"] == batch
    running = mill.json("status", f"{batch}-3")
    assert pid_of(running["worker"]) == str(worker.process.pid)
    text = mill.ok("status", f"{batch}-2")
    assert "echo_fault: the prompt asked for the fault [[fail]]" in text

    # And what is done can be had already
    assert [line["id"] for line in mill.lines("results", batch)] == [f"{batch}-1", f"{batch}-2"]
    assert [line["id"] for line in mill.lines("results", batch, "--failed")] == [f"{batch}-2"]


def test_given_a_finished_batch_when_exported_then_every_format_holds_it(
    mill: Mill, tmp_path: Path
) -> None:
    mill.worker(echoing(latency=0.01, capacity=8, faults=True))
    lines = ["one two", "[[fail]]", *(f"word {number}" for number in range(3, 41))]
    batch = mill.ok("submit", mill.prompts(lines), "--model", mill.model, "-p", "temperature=0")
    batch = batch.strip()
    mill.finished(batch)

    ordered = mill.lines("results", batch, "--provenance")
    assert [line["line"] for line in ordered] == list(range(1, 41))
    assert (ordered[0]["text"], ordered[0]["finish_reason"]) == ("one two", "stop")
    assert ordered[1]["error"]["code"] == "echo_fault"
    by_end = mill.lines("results", batch, "--provenance", "--as-finished")
    assert sorted(line["line"] for line in by_end) == list(range(1, 41))

    told = mill.json("results", batch, "-o", str(tmp_path / "out.parquet"))
    assert told == {"batch": batch, "output": str(tmp_path / "out.parquet"), "records": 40}
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["text"] for row in table] == [line["text"] for line in ordered]

    rows = list(csv.DictReader(io.StringIO(mill.ok("results", batch, "--format", "csv"))))
    assert Counter(row["state"] for row in rows) == {"succeeded": 39, "failed": 1}

    answers = mill.lines("results", batch, "--format", "openai")
    assert answers[0]["response"]["body"]["choices"][0]["text"] == "one two"
    assert answers[1]["response"] is None
    assert answers[1]["error"]["code"] == "echo_fault"

    packed = tmp_path / "out.jsonl.gz"
    mill.ok("results", batch, "-o", str(packed))
    assert packed.read_bytes().startswith(b"\x1f\x8b")


def test_given_a_batch_that_runs_when_watched_as_json_then_changes_come_till_the_end(
    mill: Mill,
) -> None:
    batch = mill.submit(60)
    watching = mill.background("watch", batch, "--json", "--interval", "0.1")
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    mill.worker(echoing(latency=0.2, capacity=10))
    rest = [json.loads(line) for line in watching.stdout]
    assert watching.wait(60) == 0
    assert (first["state"], first["counts"]["done"]) == ("queued", 0)
    done = [one["counts"]["done"] for one in rest]
    assert done == sorted(done)
    assert len(set(done)) > 2
    assert (rest[-1]["state"], done[-1]) == ("completed", 60)


def test_given_a_failing_job_when_submit_waits_then_it_exits_1_once_all_are_done(
    mill: Mill,
) -> None:
    mill.worker(echoing(faults=True))
    file = mill.prompts(["fine", "[[fail]]"])
    done = mill.run("submit", file, "--model", mill.model, "--wait", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["state"], told["counts"]["failed"], told["created"]) == ("completed", 1, True)
