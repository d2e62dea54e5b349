"""What computes beside the generation thread leaves no OpenMP threads behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
import torch

from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, request
from worker.engine.protocol import EngineConfig
from worker.engine.shared.apart import apart
from worker.engine.transformers.continuous import ContinuousBackend
from worker.engine.transformers.engine import TransformersEngine
from worker.engine.transformers.parallel import start

#: Prints by how many threads the process grew: after a loop apart, after the same one here.
_TEAMS = """
import os, time, torch
from worker.engine.shared.apart import apart

def threads():
    return len(os.listdir("/proc/self/task"))

def loop():
    torch.ones(2**20).exp_()

def settled(least):
    # A thread that was joined may be counted for a moment more.
    deadline = time.monotonic() + 30
    while threads() > least and time.monotonic() < deadline:
        pass
    return threads()

torch.set_num_threads(2)
before = threads()
apart(lambda: None)
before = settled(before)
apart(loop)
print(settled(before) - before)
loop()
print(threads() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.skipif(not torch._C.has_openmp, reason="torch without OpenMP")
def test_given_a_parallel_loop_when_run_apart_then_its_team_ends_with_it() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _TEAMS], check=True, capture_output=True, text=True, timeout=120
    )
    assert told.stdout.split() == ["0", "1"]


def test_given_an_error_when_run_apart_then_the_caller_gets_it() -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        apart(fail)


def test_given_a_model_when_started_and_rebuilt_then_nobody_who_lives_on_has_computed(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[threading.Thread] = []

    def watched(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def watching(*args: Any, **named: Any) -> Any:
            computed.append(threading.current_thread())
            return call(*args, **named)

        monkeypatch.setattr(owner, name, watching)

    watched(start, "load")
    watched(ContinuousBackend, "_build")
    engine = TransformersEngine(EngineConfig(str(checkpoint("gpt2")), "cpu", "float32"))
    engine.start()
    backend: Any = engine._running.backend
    broken = iter([torch.OutOfMemoryError("broken")])

    def break_once(*_: Any) -> None:
        error = next(broken, None)
        if error is not None:
            raise error

    backend._loaded.model.register_forward_pre_hook(break_once)
    try:
        answered = threading.Event()
        engine.submit(request("first", "Hello"), lambda *_: answered.set())
        assert answered.wait(60)
        completed(engine, [request("second", "Hello")])
        assert len(computed) == 3  # loaded, built, built again
        assert not any(thread.is_alive() for thread in computed)
    finally:
        engine.close()
