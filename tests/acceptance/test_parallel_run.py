"""`promptmill run` with a model that several processes share."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.acceptance.mill import Mill, processes_of
from tests.support.checkpoints import Checkpoint
from tests.support.processes import eventually

FOLLOWER = "worker.engine.transformers.parallel.follower"


@pytest.fixture
def shared(embedded: Mill) -> Mill:
    pytest.importorskip("worker.engine.transformers.engine")
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = '{"tensor_parallel": "2"}'
    return embedded


def _arguments(file: Path | str, model: Path, output: Path) -> list[str]:
    return [
        *("run", str(file), "--model", str(model), "--engine", "transformers", "--device", "cpu"),
        *("-p", "temperature=0", "-o", str(output), "--provenance"),
    ]


def test_given_a_model_that_two_processes_share_when_run_then_results_tell_it(
    shared: Mill, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file, output = shared.prompts(["Hello, I'm", "The quick brown fox"]), tmp_path / "out.jsonl"
    done = shared.run(*_arguments(file, checkpoint("llama-biased"), output), "-p", "max_tokens=8")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [one["line"] for one in records] == [1, 2]
    assert all(one["text"] for one in records)
    assert {one["device"] for one in records} == {"cpu×2"}
    assert {one["backend"] for one in records} == {
        "continuous, packed attention, tensor parallel 2"
    }
    assert not processes_of(tmp_path / "home")


def test_given_a_run_when_a_process_that_shares_its_model_is_killed_then_it_ends_all_the_same(
    shared: Mill, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file, output = shared.prompts(["Hello"] * 12), tmp_path / "out.jsonl"
    shared.env["PROMPTMILL_MAX_CONCURRENCY"] = "2"
    more = ("-p", "max_tokens=100", "-p", "ignore_eos=true")
    running = shared.background(*_arguments(file, checkpoint("llama-biased"), output), *more)

    def follower() -> psutil.Process | None:
        assert running.poll() is None, running.communicate()
        found = shared.client.batches()
        if not found or not found[0].done:
            return None
        below = psutil.Process(running.pid).children(recursive=True)
        return next((one for one in below if FOLLOWER in one.cmdline()), None)

    eventually(follower, what="some jobs are done", deadline=120).kill()
    said = running.communicate(timeout=240)[1]

    assert running.returncode == 0, said
    assert "the worker could not go on: " in said
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [one["line"] for one in records] == list(range(1, 13))
    assert {one["attempts"] for one in records} <= {1, 2}
    assert not processes_of(tmp_path / "home")
