"""`promptmill replay`, and what every result tells of its making, with a real model."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from db.checkpoint import Weights
from db.records import Job
from tests.acceptance.mill import Mill, echoing
from tests.support.checkpoints import Checkpoint

#: Each is another way of asking; the first is drawn with a seed of its own.
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "Hello there", "seed": 7, "n": 2, "max_tokens": 12},
    {"prompt": "The mill", "max_tokens": 12, "top_p": 0.9},
    {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12, "echo": True},
]

#: What the model's template writes before a chat.
CLOCK = "It is %Y-%m-%d %H:%M:%S.%f. "


class Replayed:
    """A batch that a worker of its own has run, and the model's folder."""

    def __init__(self, mill: Mill, folder: Path) -> None:
        self.mill = mill
        self.folder = folder
        file = mill.folder / "requests.jsonl"
        file.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in REQUESTS))
        told = mill.json("run", str(file), "--model", str(folder), "--dtype", "float32")
        assert told["counts"]["succeeded"] == len(REQUESTS)
        self.batch = str(told["id"])

    def replay(self, line: int, *options: str) -> subprocess.CompletedProcess[str]:
        return self.mill.run("replay", f"{self.batch}-{line}", *options)

    def told(self, line: int, *, code: int) -> dict[str, Any]:
        done = self.replay(line, "--json")
        assert done.returncode == code, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def job(self, line: int) -> Job:
        return self.mill.job(self.batch, line)


@pytest.fixture
def ran(embedded: Mill, checkpoint: Checkpoint, tmp_path: Path) -> Replayed:
    embedded.env["PROMPTMILL_ENGINE"] = "transformers"
    folder = Path(shutil.copytree(checkpoint("gemma3"), tmp_path / "model"))
    template = folder / "chat_template.jinja"
    template.write_text("{{ strftime_now('" + CLOCK + "') }}" + template.read_text())
    return Replayed(embedded, folder)


def other_weights(folder: Path) -> None:
    """The same names and shapes, other numbers."""
    file = folder / "model.safetensors"
    torch.manual_seed(1)
    changed = {
        name: tensor + torch.randn_like(tensor) * 0.2 for name, tensor in load_file(file).items()
    }
    save_file(changed, file, metadata={"format": "pt"})


def test_given_a_model_when_run_then_its_results_tell_what_made_them_and_replays_are_the_same(
    ran: Replayed,
) -> None:
    first = ran.job(1)
    made = first.provenance
    assert made is not None
    said = subprocess.run(
        "sha256sum model.safetensors | sha256sum",
        shell=True,
        cwd=ran.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.weights == said.stdout.split()[0]
    assert made.tokenizer is not None
    assert (made.model, made.engine, made.dtype) == (str(ran.folder), "transformers", "float32")
    assert f"torch {torch.__version__}" in made.engine_version
    assert made.backend == "continuous, packed attention"
    assert made.hardware
    assert (first.seed, first.params and first.params["max_tokens"]) == (7, 12)
    for result in ran.mill.client.results(ran.batch):
        assert (result.weights, result.tokenizer) == (made.weights, made.tokenizer)
    shown = ran.mill.ok("status", f"{ran.batch}-1")
    assert f"weights    {made.weights}\n" in shown
    assert "seed       7\n" in shown

    created = datetime.fromtimestamp(ran.mill.client.batch(ran.batch).created_at, UTC)
    assert created.strftime(CLOCK) in ran.job(3).samples[0]["text"]
    for line in (1, 3):
        told = ran.told(line, code=0)
        assert (told["same"], told["differences"], told["changed"]) == (True, [], [])


def test_given_a_model_that_changes_when_replayed_then_it_is_told_how_far_until_it_can_not_be(
    ran: Replayed,
) -> None:
    before = ran.job(1)
    other_weights(ran.folder)
    told = ran.told(1, code=1)
    assert told["same"] is False
    assert told["changed"] == ["weights"]
    assert told["stored"]["weights"] != told["replayed"]["weights"]
    for one in told["differences"]:
        stored = before.samples[one["sample"]]["text"]
        assert one["stored"] == stored
        assert one["replayed"][: one["at"]] == stored[: one["at"]]
        assert one["replayed"][one["at"]] != stored[one["at"]]
    assert ran.job(1) == before, "what is stored stays"
    config = ran.folder / "config.json"
    config.write_text(config.read_text() + "\n")
    done = ran.replay(1)
    assert done.returncode == 2
    assert "has another revision here" in done.stderr
    shutil.rmtree(ran.folder)
    done = ran.replay(1, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{ran.batch}-1 can't be replayed here: " in done.stderr
    assert "does not exist" in done.stderr


def test_given_the_echo_engine_when_replayed_then_it_is_the_same_and_unfinished_jobs_are_refused(
    embedded: Mill,
) -> None:
    run = embedded.json("run", embedded.numbered(1), "--model", embedded.model)
    told = embedded.json("replay", f"{run['id']}-1")
    assert (told["same"], told["replayed"]["weights"]) == (True, None)
    waiting = embedded.submit(1, "--name", "waits")
    for job, reason in (
        (f"{waiting}-1", "is queued: only a job that succeeded"),
        (waiting, "is a batch: this takes a job"),
        (f"{waiting}-9", "has no job 9"),
        ("nonsense", "no batch has the id or the name"),
    ):
        done = embedded.run("replay", job)
        assert (done.returncode, reason in done.stderr) == (2, True), done.stderr


def test_given_a_database_that_is_away_when_replayed_then_it_is_no_other_text(
    embedded: Mill,
) -> None:
    away = {"PROMPTMILL_DATABASE_URL": "postgresql+psycopg://x:x@127.0.0.1:1/x"}
    done = embedded.run("replay", "bk3v9xq2h7mz-1", env=away)
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr


def test_given_an_engine_that_dies_when_replayed_then_it_is_no_other_text(embedded: Mill) -> None:
    file = embedded.prompts(["[[exit]] is an ordinary prompt"])
    run = embedded.json("run", file, "--model", embedded.model)
    done = embedded.run(
        "replay", f"{run['id']}-1", env={"PROMPTMILL_ENGINE_OPTIONS": echoing(faults=True)}
    )
    assert done.returncode == 2
    assert "the engine's process could not go on: it ended with code 70" in done.stderr


def test_given_a_model_of_the_hub_when_replayed_then_it_is_the_commit_that_made_the_text(
    embedded: Mill, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    hub = tmp_path / "hub" / "models--test--tiny"
    made_by, newer = "a" * 40, "b" * 40
    for commit in (made_by, newer):
        shutil.copytree(checkpoint("gpt2"), hub / "snapshots" / commit)
    other_weights(hub / "snapshots" / newer)
    main = hub / "refs" / "main"
    main.parent.mkdir()
    main.write_text(made_by)
    embedded.env |= {
        "PROMPTMILL_ENGINE": "transformers",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    file = embedded.prompts(["Hello there"])
    run = embedded.json("run", file, "--model", "test/tiny", "--dtype", "float32")
    made = embedded.job(run["id"], 1).provenance
    assert made is not None
    assert (made.revision, made.weights) == (
        made_by,
        Weights.of(hub / "snapshots" / made_by).digest(),
    )
    main.write_text(newer)
    told = embedded.json("replay", f"{run['id']}-1")
    assert (told["same"], told["changed"]) == (True, [])
    shutil.rmtree(hub / "snapshots" / made_by)
    assert embedded.run("replay", f"{run['id']}-1").returncode == 2
