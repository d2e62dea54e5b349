"""The guard, with plain processes in the place of an engine's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from worker.engine.shared import guard

ROOT = Path(__file__).parents[3]

#: A worker whose engine is a process in a session of its own, with a process of its own; it tells
#: their numbers and then waits for its input to end, or closes the guard.
WORKER = """
import subprocess, sys
from worker.engine.shared.guard import Guard
guard = Guard()
guard.watch()
nap = "import time; time.sleep(600)"
below = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {nap!r}]); " \
    "print(p.pid, flush=True); p.wait()"
engine = subprocess.Popen([sys.executable, "-c", below], stdout=subprocess.PIPE,
    start_new_session=True)
below = int(engine.stdout.readline())
guard.rest()
print(engine.pid, below, flush=True)
sys.stdin.readline()
guard.close()
engine.wait()
"""


@pytest.fixture
def worker() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )


def processes(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The engine's, as soon as they are there; and the guard."""
    assert worker.stdout is not None
    told = worker.stdout.readline().split()
    everything = psutil.Process(worker.pid).children(recursive=True)
    guards = [one for one in everything if guard.__file__ in one.cmdline()]
    assert len(guards) == 1
    return [*(psutil.Process(int(pid)) for pid in told), *guards]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_given_a_worker_that_dies_when_its_engine_does_not_notice_then_the_guard_ends_it(
    worker: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    left = processes(worker)
    worker.send_signal(number)
    worker.wait(30)
    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []


def test_given_a_worker_that_closes_when_something_is_left_then_the_guard_ends_it_and_leaves(
    worker: subprocess.Popen[bytes],
) -> None:
    left = processes(worker)
    worker.communicate(b"\n", timeout=30)
    assert worker.returncode == 0
    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []
