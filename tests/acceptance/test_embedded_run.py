"""`promptmill run`: all in one, on SQLite and a private Redis-compatible server."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path

import orjson
import psutil
import pytest

from db.settings import Settings
from producer import Client
from tests.acceptance.mill import Mill, echoing, processes_of
from tests.support.checkpoints import Checkpoint
from tests.support.processes import eventually

#: 200 jobs of this take a worker some 2 s: time to interrupt it in the middle.
_SLOW = echoing(latency=0.1, capacity=10)
_JOBS = 200


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


@pytest.fixture
def slow(embedded: Mill) -> Mill:
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = _SLOW
    return embedded


def _arguments(mill: Mill, output: Path) -> list[str]:
    return ["run", mill.numbered(_JOBS), "--model", mill.model, "-o", str(output), "--provenance"]


def _begun(mill: Mill, running: subprocess.Popen[str], batches: int = 1) -> str:
    """Start-up is over, some jobs of the last of so many batches are done; that batch's id."""

    def look() -> str | None:
        assert running.poll() is None, running.communicate()
        found = mill.client.batches()
        return found[0].id if len(found) == batches and found[0].done else None

    return eventually(look, what="the run is in the middle")


def _gone(home: Path) -> None:
    eventually(lambda: not processes_of(home), what="no process is left", deadline=30)


def _check(output: Path, attempts: set[int]) -> None:
    """Every job's result is there once, in order."""
    records = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    assert [record["line"] for record in records] == list(range(1, _JOBS + 1))
    assert all(sorted(one["text"].split()) == sorted(one["prompt"].split()) for one in records)
    assert {record["attempts"] for record in records} <= attempts


def test_given_only_defaults_when_run_then_the_results_are_the_prompts_in_order(
    embedded: Mill, home: Path, output: Path
) -> None:
    arguments = _arguments(embedded, output)
    done = embedded.run(*arguments, "-p", "temperature=0")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["text"] for record in records] == [record["prompt"] for record in records]
    assert [record["prompt"] for record in records] == [
        f"n{number} of many" for number in range(1, _JOBS + 1)
    ]
    (batch,) = embedded.client.batches()
    assert f"{batch.id} completed: {_JOBS} of {_JOBS} succeeded" in done.stderr
    assert (home / "promptmill.db").is_file()
    assert not processes_of(home)

    # And again, it is the same batch, at once
    told = embedded.json(*arguments, "-p", "temperature=0")
    assert told["id"] == batch.id
    assert told["output"] == str(output)
    assert len(embedded.client.workers(within=3600)) == 0

    # And with --fresh, it is another one
    fresh = embedded.json(*arguments, "-p", "temperature=0", "--fresh")
    assert fresh["id"] != batch.id
    assert fresh["counts"]["succeeded"] == _JOBS

    # Which from then on is the one of this command
    assert embedded.json(*arguments, "-p", "temperature=0")["id"] == fresh["id"]


def test_given_ctrl_c_in_a_fresh_run_when_run_again_then_it_goes_on_with_that_one(
    slow: Mill, output: Path
) -> None:
    slow.env["PROMPTMILL_GRACE"] = "0"
    arguments = _arguments(slow, output)
    for count in (1, 2):  # the second one leaves the first one, which is unfinished, alone
        running = slow.background(*arguments, "--fresh")
        batch = _begun(slow, running, count)
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[1]
        assert "run the same command without --fresh to continue" in said
    slow.env |= {"PROMPTMILL_ENGINE_OPTIONS": echoing()}

    assert slow.json(*arguments)["id"] == batch
    assert slow.client.batch(batch).finished


def test_given_ctrl_c_in_the_middle_when_run_again_then_it_goes_on_and_nothing_is_done_twice(
    slow: Mill, home: Path, output: Path
) -> None:
    slow.env["PROMPTMILL_GRACE"] = "0"
    running = slow.background(*_arguments(slow, output))
    batch = _begun(slow, running)

    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]

    assert running.returncode == 128 + signal.SIGINT
    assert "stopping: " in said
    assert "Traceback" not in said
    assert not processes_of(home)
    assert not output.exists()
    done = slow.client.batch(batch).done
    assert 0 < done < _JOBS

    again = slow.run(*_arguments(slow, output))
    assert again.returncode == 0, again.stderr
    assert f"going on with {batch}: {done} of {_JOBS} are done" in again.stderr
    _check(output, {1})


def test_given_a_job_that_never_ends_when_ctrl_c_is_pressed_twice_then_it_stops_at_once(
    embedded: Mill, home: Path
) -> None:
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = echoing(faults=True)
    file = embedded.prompts(["fine", "[[hang]]"])
    running = embedded.background("run", file, "--model", embedded.model)
    _begun(embedded, running)

    running.send_signal(signal.SIGINT)
    eventually(lambda: "stopping: finishing" in _logs(home), what="the worker finishes")
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=20)[1]  # of a grace of 30

    assert running.returncode in (1, 130)
    assert "Ctrl-C again to stop now" in said
    assert "run the same command to continue" in said
    assert "Traceback" not in said
    assert not processes_of(home)


def _logs(home: Path) -> str:
    return "".join(log.read_text() for log in home.glob("logs/*"))


def test_given_a_killed_run_when_run_again_then_its_worker_has_left_and_the_rest_is_done(
    slow: Mill, home: Path, output: Path
) -> None:
    slow.env["PROMPTMILL_GRACE"] = "0"
    running = slow.background(*_arguments(slow, output))
    batch = _begun(slow, running)
    assert len(processes_of(home)) == 3  # itself, the worker, the broker

    running.kill()
    running.communicate()

    _gone(home)  # the worker by itself, and the broker with its last user
    assert not slow.client.batch(batch).finished, "the test is too slow for its batch"
    again = slow.run(*_arguments(slow, output))
    assert again.returncode == 0, again.stderr
    assert slow.client.batches()[0].id == batch
    _check(output, {1})


def test_given_a_killed_worker_when_it_ran_then_another_one_finishes_its_jobs(
    slow: Mill, home: Path, output: Path
) -> None:
    running = slow.background(*_arguments(slow, output))
    _begun(slow, running)
    (worker,) = psutil.Process(running.pid).children()

    worker.kill()
    said = running.communicate(timeout=60)[1]

    assert running.returncode == 0, said
    assert "the worker could not go on: " in said
    _check(output, {1, 2})
    assert not processes_of(home)


def test_given_two_runs_of_one_file_when_started_at_once_then_they_share_one_batch(
    slow: Mill, home: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    running = [slow.background(*_arguments(slow, output)) for output in outputs]
    for run in running:
        said = run.communicate(timeout=120)[1]
        assert run.returncode == 0, said
    assert len(slow.client.batches()) == 1
    for output in outputs:
        _check(output, {1})
    _gone(home)


def test_given_a_failing_job_when_run_then_it_exits_1_and_the_results_tell_why(
    embedded: Mill, output: Path
) -> None:
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = echoing(faults=True)
    file = embedded.prompts(["fine", "[[fail]]"])
    done = embedded.run("run", file, "--model", embedded.model, "-o", str(output))
    assert done.returncode == 1
    assert "1 of 2 succeeded, 1 failed" in done.stderr
    assert "Traceback" not in done.stderr
    fine, failed = (json.loads(line) for line in output.read_text().splitlines())
    assert fine["state"] == "succeeded"
    assert failed["error"]["code"] == "echo_fault"


def test_given_an_unknown_model_when_run_then_one_line_says_so_and_nothing_is_queued(
    embedded: Mill, home: Path
) -> None:
    pytest.importorskip("worker.engine.transformers.engine")
    file = embedded.prompts(["a prompt"])
    done = embedded.run(
        "run", file, "--model", "nobody/no-such-model", "--engine", "transformers",
        env={"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("promptmill: model nobody/no-such-model is not on this machine")
    assert embedded.client.batches() == []
    assert not processes_of(home)


def test_given_a_bad_engine_option_when_run_then_one_line_says_so_and_nothing_is_queued(
    embedded: Mill,
) -> None:
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = '{"latncy": "1"}'
    done = embedded.run("run", embedded.numbered(2), "--model", embedded.model)
    assert done.returncode == 2
    # What it loads may be said before
    line = done.stderr.splitlines()[-1]
    assert "engine 'echo' has no option 'latncy': did you mean 'latency'?" in line
    assert embedded.client.batches() == []


def test_given_no_output_when_run_in_a_pipe_then_the_results_are_on_standard_output(
    embedded: Mill,
) -> None:
    records = embedded.lines("run", embedded.numbered(3), "--model", embedded.model)
    assert [record["id"][-2:] for record in records] == ["-1", "-2", "-3"]
    table = embedded.ok("run", embedded.numbered(3), "--model", embedded.model, "--table")
    assert "n1 of many" in table


def test_given_prompts_by_pipe_when_run_then_they_run(embedded: Mill) -> None:
    text = embedded.ok("run", "-", "--model", embedded.model, stdin="one two\nthree four\n")
    assert Counter(json.loads(line)["state"] for line in text.splitlines()) == {"succeeded": 2}


def test_given_a_real_gpt2_when_run_then_it_generates_and_tells_its_failures(
    embedded: Mill, checkpoint: Checkpoint, output: Path, home: Path
) -> None:
    pytest.importorskip("worker.engine.transformers.engine")
    model = checkpoint("gpt2")
    requests = [
        {"prompt": "Hello, I'm a language model,", "max_length": 30},
        {"prompt": "The quick brown fox", "n": 2, "seed": 1},
        {"prompt": "far too long " * 200, "custom_id": "long"},
    ]
    file = embedded.prompts(map(json.dumps, requests), "prompts.jsonl")
    done = embedded.run(
        "run", file, "--model", str(model), "--engine", "transformers", "--device", "cpu",
        "-p", "max_tokens=8", "-o", str(output), "--provenance",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "2 of 3 succeeded, 1 failed" in done.stderr
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(one["line"], one["sample"]) for one in records] == [(1, 0), (2, 0), (2, 1), (3, 0)]
    assert all(one["text"] for one in records[:3])
    assert records[0]["prompt_tokens"] + records[0]["completion_tokens"] <= 30
    assert records[1]["completion_tokens"] <= 8
    assert records[3]["custom_id"] == "long"
    assert records[3]["error"]["code"] == "prompt_too_long"
    assert "the model takes 256" in records[3]["error"]["message"]
    with Client(Settings(home=home)) as client:
        assert client.batches()[0].failed == 1
