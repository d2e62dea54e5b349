"""A model shared by processes when one of them is lost, hangs or can't begin."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from db.errors import ModelLoadError
from tests.support.checkpoints import Checkpoint
from tests.support.collector import Collector, completed, outcomes, request
from tests.support.measured import embedding_of, measured
from tests.support.processes import environment, eventually
from worker.engine.protocol import Engine, EngineConfig, Failed
from worker.engine.registry import create
from worker.engine.transformers.loading import load
from worker.engine.transformers.parallel import follower as follower_module
from worker.engine.transformers.parallel import start, team

ROOT = Path(__file__).parents[3]

ENDLESS = {"max_tokens": 240, "ignore_eos": True}

#: A worker's engine in a process of its own: it says when it is up, or in the middle of a text.
LEADER = """
import sys
from tests.support.collector import Collector, request
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create

config = EngineConfig(sys.argv[1], "cpu", "float32", options={"tensor_parallel": "2"})
engine = create("transformers", config)
engine.start()
if sys.argv[2] == "busy":
    collector = Collector()
    for number in range(200):
        engine.submit(request(str(number), "Hello", max_tokens=240, ignore_eos=True),
            collector.on_done)
    while not engine.stats().completion_tokens:
        pass
print("up", flush=True)
sys.stdin.read()
"""


def followers(of: int | None = None) -> list[psutil.Process]:
    """The processes that share this process's model, or that one's."""
    found = []
    for process in psutil.Process(of).children(recursive=True):
        with suppress(psutil.Error):
            if follower_module.__name__ in process.cmdline():
                found.append(process)
    return found


def config(folder: Path) -> EngineConfig:
    return EngineConfig(
        str(folder), "cpu", "float32", max_concurrency=4, options={"tensor_parallel": "2"}
    )


@pytest.fixture
def engine(checkpoint: Checkpoint) -> Iterator[Engine]:
    made = create("transformers", config(checkpoint("llama-biased")))
    made.start()
    yield made
    made.close()
    assert followers() == []
    assert not torch.distributed.is_initialized()


def busy(engine: Engine) -> Collector:
    """In the middle of one text."""
    collector = Collector()
    before = engine.stats().completion_tokens
    engine.submit(request("one", "Hello", **ENDLESS), collector.on_done)
    eventually(lambda: engine.stats().completion_tokens > before, what="it generates")
    return collector


def test_given_a_process_that_is_killed_when_it_generates_then_all_fails_and_the_engine_is_broken(
    engine: Engine,
) -> None:
    (follower,) = followers()
    collector = busy(engine)
    follower.kill()
    outcome = collector.wait(1)["one"]
    reason = "its process on cpu, rank 1, was killed (SIGKILL)"
    message = f"the engine broke while generating: {reason}"
    assert outcome == Failed("engine_error", message, retriable=True)
    stats = engine.stats()
    assert (stats.broken, stats.capacity, stats.in_flight) == (message, 0, 0)
    later = outcomes(engine, [request("two", "Hello")])["two"]
    assert later == Failed("engine_error", message, retriable=True)
    embedded = measured(engine, [embedding_of("three", "Hello")])["three"]
    assert isinstance(embedded, Failed)
    assert embedded.retriable


def test_given_an_idle_engine_when_a_process_is_killed_then_it_is_broken_at_once(
    engine: Engine,
) -> None:
    (follower,) = followers()
    assert completed(engine, [request("one", "Hello")])
    assert engine.stats().broken is None
    follower.kill()
    eventually(lambda: engine.stats().broken, what="the engine is broken", deadline=10)


def test_given_a_process_that_hangs_when_closed_then_it_is_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "_LAST_PASS", 0.5)
    monkeypatch.setattr(team, "_LEAVE", 0.5)
    (follower,) = followers()
    busy(engine)
    follower.suspend()
    eventually(lambda: engine.stats().stalled_for > 0.5, what="it stands still")
    engine.close()
    assert followers() == []


@pytest.mark.parametrize(("state", "hangs"), [("idle", False), ("busy", True)])
def test_given_a_leader_that_is_killed_when_nobody_cleans_up_then_its_followers_end(
    checkpoint: Checkpoint, state: str, *, hangs: bool
) -> None:
    command = [sys.executable, "-c", LEADER, str(checkpoint("llama-biased")), state]
    leader = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment()
    )
    assert leader.stdout is not None
    assert leader.stdout.readline() == b"up\n"
    (follower,) = followers(leader.pid)
    if hangs:
        follower.suspend()
    leader.send_signal(signal.SIGKILL)
    leader.wait()
    eventually(lambda: not follower.is_running(), what="the follower ends", deadline=20)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model": "/nowhere/at/all"}, "model folder '/nowhere/at/all' does not exist"),
        ({"dtype": "float8"}, "dtype 'float8' is none of auto, float32, bfloat16, float16"),
    ],
)
def test_given_a_follower_that_cant_load_when_started_then_its_reason_is_told(
    checkpoint: Checkpoint, other: dict[str, Any], message: str
) -> None:
    good = config(checkpoint("llama-biased"))
    made = team.Team(replace(good, **other), start.devices_of(good))
    with pytest.raises(ModelLoadError) as failure:
        made.unless_broken(lambda: load(good, shard=made.gather()))
    made.close()
    assert failure.value.message == message
    assert followers() == []
    assert not torch.distributed.is_initialized()


def test_given_a_follower_that_dies_when_started_then_the_error_says_so(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "_FOLLOWER", "this")  # which prints a poem and ends
    made = create("transformers", config(checkpoint("llama-biased")))
    with pytest.raises(ModelLoadError) as failure:
        made.start()
    assert failure.value.message == "its process on cpu, rank 1, ended with code 0"
    assert not torch.distributed.is_initialized()


def test_given_two_models_in_one_process_when_both_are_shared_then_the_second_is_refused(
    engine: Engine, checkpoint: Checkpoint
) -> None:
    other = create("transformers", config(checkpoint("gemma3")))
    with pytest.raises(ModelLoadError) as failure:
        other.start()
    assert "start a worker of its own" in failure.value.message
    assert completed(engine, [request("one", "Hello")])


def test_given_a_follower_without_memory_when_its_cache_is_made_then_less_is_admitted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is rebuilt after an error of ours; the follower's first answer is made up."""
    shared = engine._team  # type: ignore[attr-defined]
    answers: Callable[..., list[object]] = shared._answers
    left = ["out of memory on cpu: made up"]

    def some(kind: type, seconds: float | None = None) -> list[object]:
        found = answers(kind, seconds)
        if left:
            return [replace(one, failure=left.pop()) for one in found]  # type: ignore[type-var]
        return found

    monkeypatch.setattr(shared, "_answers", some)
    backend = engine._running.backend  # type: ignore[attr-defined]
    backend._manager.batch_processor.model_runner._choose = lambda *_: 1 / 0
    first = outcomes(engine, [request("one", "Hello")])["one"]
    assert isinstance(first, Failed)
    assert completed(engine, [request("two", "Hello")])
    assert engine.stats().capacity == 2
    assert engine.stats().broken is None
