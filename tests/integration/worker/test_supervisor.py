"""One worker process per GPU: signals reach each once, and one that dies comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from db.errors import SettingsError
from tests.support.processes import environment, eventually
from worker import supervisor

#: The supervisor as it is, but for the command that it starts.
SCRIPT = """
import subprocess, sys
from worker import supervisor

def start(device, after=None):
    command = [sys.executable, "-c", sys.argv[2], sys.argv[1], device.name]
    process = subprocess.Popen(command, start_new_session=True)
    return supervisor._Child(device, "mark", process)

supervisor._start = start
supervisor._LOOK = 0.02
devices = [supervisor.Device("cuda:0"), supervisor.Device("cuda:1")]
sys.exit(supervisor.Supervisor(devices).run())
"""

#: A worker: says that it runs, and leaves on SIGTERM.
WORKER = """
import os, pathlib, signal, sys
folder, device = pathlib.Path(sys.argv[1]), sys.argv[2]
received = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: received.append(number))
(folder / f"{device}.{os.getpid()}").touch()
while not received:
    signal.pause()
(folder / f"{device}.ended").write_text(str(len(received)))
"""

#: As WORKER, but the one on cuda:1 can't start.
BROKEN = "import sys\nif sys.argv[2] == 'cuda:1': sys.exit(2)\n" + WORKER


class Supervised:
    def __init__(self, folder: Path, code: str) -> None:
        self._folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), code],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def pids(self, device: str) -> list[int]:
        """Every process that ever worked on the device."""
        names = [one.name for one in self._folder.glob(f"{device}.*")]
        return [int(name.rpartition(".")[2]) for name in names if not name.endswith("ended")]

    def up(self) -> bool:
        return bool(self.pids("cuda:0") and self.pids("cuda:1"))

    def ended(self) -> dict[str, str]:
        """Device -> how many signals its worker had heard when it left."""
        return {
            one.name.rpartition(".")[0]: one.read_text() for one in self._folder.glob("*.ended")
        }

    def wait(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[str], Supervised]]:
    made: list[Supervised] = []

    def make(code: str) -> Supervised:
        made.append(Supervised(tmp_path, code))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        one.process.communicate()
        for pid in one.pids("cuda:0") + one.pids("cuda:1"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_given_two_workers_when_told_to_stop_then_each_hears_it_once_and_the_exit_is_clean(
    supervise: Callable[[str], Supervised], number: signal.Signals
) -> None:
    running = supervise(WORKER)
    eventually(running.up, what="both workers run")
    running.process.send_signal(number)
    assert running.wait() == (0, "")
    assert running.ended() == {"cuda:0": "1", "cuda:1": "1"}


def test_given_a_worker_that_can_not_start_when_it_ends_then_all_end_with_its_exit_code(
    supervise: Callable[[str], Supervised],
) -> None:
    running = supervise(BROKEN)
    code, said = running.wait()
    assert code == 2
    assert said == "promptmill worker: the worker on cuda:1 could not start: stopping all\n"
    # The other one was told, if it had come so far as to hear it.
    assert set(running.ended()) <= {"cuda:0"}
    for pid in running.pids("cuda:0"):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_given_a_worker_that_is_killed_when_it_had_run_then_only_it_is_started_again(
    supervise: Callable[[str], Supervised],
) -> None:
    running = supervise(WORKER)
    eventually(running.up, what="both workers run")
    (killed,) = running.pids("cuda:1")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: len(running.pids("cuda:1")) == 2, what="it is started again")
    assert len(running.pids("cuda:0")) == 1
    running.process.send_signal(signal.SIGTERM)
    code, said = running.wait()
    assert code == 0
    told = f"worker {killed} on cuda:1 was killed (SIGKILL): again in 1 s"
    assert said == f"promptmill worker: {told}\n"
    assert running.ended() == {"cuda:0": "1", "cuda:1": "1"}


@pytest.mark.parametrize(
    ("gpus", "count", "devices"),
    [
        ("all", 2, ["cuda:0", "cuda:1"]),
        ("0", 1, ["cuda:0"]),
        ("2,0", 3, ["cuda:2", "cuda:0"]),
    ],
)
def test_given_gpus_when_they_are_there_then_each_gets_a_worker(
    gpus: str, count: int, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_gpu_count", lambda: count)
    assert [one.name for one in supervisor.groups(supervisor._gpus(gpus), 1)] == devices


@pytest.mark.parametrize(
    ("gpus", "size", "seen", "groups"),
    [
        ([0, 1, 2, 3], 4, None, [("cuda:0,1,2,3", "0,1,2,3")]),
        ([0, 1, 2, 3], 2, None, [("cuda:0,1", "0,1"), ("cuda:2,3", "2,3")]),
        ([3, 1], None, None, [("cuda:3,1", "3,1")]),
        ([0], None, None, [("cuda:0", None)]),
        ([0, 2], 2, "7,5,GPU-12ab", [("cuda:0,2", "7,GPU-12ab")]),
    ],
)
def test_given_gpus_when_a_model_takes_several_then_a_worker_sees_so_many_of_them(
    gpus: list[int],
    size: int | None,
    seen: str | None,
    groups: list[tuple[str, str | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    found = supervisor.groups(gpus, size)
    assert [(one.name, one.visible) for one in found] == groups
    told = [one.environment.get("CUDA_VISIBLE_DEVICES") for one in found]
    assert told == [visible for _, visible in groups]


def test_given_gpus_when_some_would_be_left_over_then_the_error_says_so() -> None:
    with pytest.raises(SettingsError) as failure:
        supervisor.groups([0, 1, 2], 2)
    assert failure.value.message == (
        "--gpus: 3 GPUs can't be shared out to workers of 2 (tensor_parallel=2): name a multiple "
        "of 2"
    )


@pytest.mark.parametrize(
    ("gpus", "count", "message"),
    [
        (
            "all",
            0,
            (
                "--gpus all: torch sees no GPU here ('promptmill doctor' tells more); "
                "leave --gpus out to use the CPU"
            ),
        ),
        ("0,2", 2, "--gpus 0,2: there are 2 GPUs here, numbered from 0"),
        ("0,0", 2, "--gpus 0,0: there are 2 GPUs here, numbered from 0"),
        ("-1", 2, "--gpus -1: there are 2 GPUs here, numbered from 0"),
        ("both", 2, "--gpus both: give 'all', or numbers as in 0,2"),
        ("", 2, "--gpus : give 'all', or numbers as in 0,2"),
    ],
)
def test_given_gpus_that_are_not_there_when_asked_for_then_the_error_says_what_there_is(
    gpus: str, count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_gpu_count", lambda: count)
    with pytest.raises(SettingsError) as failure:
        supervisor._gpus(gpus)
    assert failure.value.message == message
