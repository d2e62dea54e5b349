"""Worker processes, kept alive: one, or one per GPU (`promptmill worker --gpus all`), or, where
several GPUs share a model (`tensor_parallel`), one per group of these.

Processes, not threads: a process holds one model on one device, and one that dies takes no other
with it. A worker that says that it can't even start ends them all, with its exit code; one that
dies otherwise is started again, ever later if it keeps dying: nobody's prompts wait for ever
because one of them kills its worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from db.errors import SettingsError
from db.ids import new_mark, worker_name
from db.settings import Settings, variable
from db.wording import count_of, how_it_ended
from worker.engine.options import tensor_parallel
from worker.stderr import say

#: Exit codes of a worker that could not start, however long it tried: the next one could not
#: either. Once it is ready it exits with neither (`worker.__main__`).
_COULD_NOT_START = (1, 2)
_LONGEST_PAUSE = 60.0
_LOOK = 0.2


@dataclass(frozen=True)
class Device:
    """What one worker gets."""

    #: For people and for its setting: `auto`, `cuda:1`.
    name: str
    #: The GPUs that it sees, as CUDA_VISIBLE_DEVICES tells them; None: all.
    visible: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        if self.visible is None:
            return {variable("device"): self.name}
        return {variable("device"): "cuda", "CUDA_VISIBLE_DEVICES": self.visible}


@dataclass
class _Child:
    device: Device
    mark: str
    process: subprocess.Popen[bytes]
    deaths: int = 0
    restart_at: float | None = None

    @property
    def name(self) -> str:
        """What the database knows it by."""
        return worker_name(self.process.pid, self.mark)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class Supervisor:
    """Starts the workers, hands signals on to them, and starts again those that die."""

    def __init__(self, devices: list[Device]) -> None:
        self._pending: list[int] = []
        self._stopping = False
        self._exit_code = 0
        # Before the first child: a signal that comes now must reach every one.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._children = [_start(device) for device in devices]

    def run(self) -> int:
        """Until every worker has ended; the exit code."""
        while any(child.alive or child.restart_at for child in self._children):
            time.sleep(_LOOK)
            while self._pending:
                self._tell(self._pending.pop(0))
            for child in self._children:
                if not child.alive:
                    self._look_after(child)
        return self._exit_code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._pending.append(number)
        self._stopping = True

    def _look_after(self, child: _Child) -> None:
        """A worker has ended: leave it, plan its restart, or restart it."""
        if self._stopping:
            child.restart_at = None
        elif child.restart_at is not None:
            if time.monotonic() >= child.restart_at:
                _restart(child)
        elif _could_not_start(child):
            if len(self._children) > 1:
                say(f"the worker on {child.device.name} could not start: stopping all")
            self._stopping = True
            self._exit_code = child.process.returncode or 1
            self._tell(signal.SIGTERM)
        else:
            _schedule(child)

    def _tell(self, number: int) -> None:
        for child in self._children:
            if child.alive:
                child.process.send_signal(number)


def supervise(config: Settings, gpus: str | None) -> int:
    """Run workers on these GPUs (`all`, or `0,2`), or one on the settings' device, until told
    to stop; the exit code.
    """
    if gpus is None:
        return Supervisor([Device(config.device)]).run()
    devices = groups(_gpus(gpus), tensor_parallel(config.engine_options))
    names = "; ".join(device.name for device in devices)
    say(f"{count_of(len(devices), 'worker')} for {config.model}: {names}")
    return Supervisor(devices).run()


def groups(gpus: Sequence[int], size: int | None) -> list[Device]:
    """One worker for each `size` of these GPUs, in their order; None: one worker for all.

    Raises SettingsError where some would be left over.
    """
    size = size or len(gpus)
    if size == 1:
        return [Device(f"cuda:{number}") for number in gpus]
    if len(gpus) % size:
        raise SettingsError(
            f"--gpus: {count_of(len(gpus), 'GPU')} can't be shared out to workers of {size} "
            f"(tensor_parallel={size}): name a multiple of {size}"
        )
    parts = [gpus[first : first + size] for first in range(0, len(gpus), size)]
    return [
        Device(f"cuda:{','.join(map(str, part))}", ",".join(_true_name(one) for one in part))
        for part in parts
    ]


def _true_name(number: int) -> str:
    """What a GPU that we know by this number is called where the children look."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[number].strip() if visible else str(number)


def _could_not_start(child: _Child) -> bool:
    return child.deaths == 0 and child.process.returncode in _COULD_NOT_START


def _gpus(gpus: str) -> list[int]:
    count = _gpu_count()
    if gpus == "all":
        if count == 0:
            raise SettingsError(
                "--gpus all: torch sees no GPU here ('promptmill doctor' tells more); "
                "leave --gpus out to use the CPU"
            )
        return list(range(count))
    try:
        numbers = [int(part) for part in gpus.split(",")]
    except ValueError:
        raise SettingsError(f"--gpus {gpus}: give 'all', or numbers as in 0,2") from None
    missing = [number for number in numbers if not 0 <= number < count]
    if missing or len(set(numbers)) != len(numbers):
        raise SettingsError(f"--gpus {gpus}: there are {count} GPUs here, numbered from 0")
    return numbers


def _gpu_count() -> int:
    """Asked in a process of its own: this one must hold no GPU memory."""
    answer = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(answer.stdout) if answer.returncode == 0 else 0


def _start(device: Device, after: str | None = None) -> _Child:
    """A worker; `after` is the name of the one in whose place it comes."""
    environment = {**os.environ, **device.environment}
    mark = new_mark()
    place = [] if after is None else ["--after", after]
    # Own sessions: Ctrl-C reaches the supervisor, and it tells each child once.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
        # They leave with the supervisor, however it dies: it holds the other end of the pipe.
        [sys.executable, "-P", "-m", "worker", "--leave-with-parent", "--mark", mark, *place],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    return _Child(device, mark, process)


def _schedule(child: _Child) -> None:
    child.deaths += 1
    pause = min(_LONGEST_PAUSE, 2.0 ** min(child.deaths - 1, 10))
    child.restart_at = time.monotonic() + pause
    where = "" if child.device.name == "auto" else f" on {child.device.name}"
    code = child.process.returncode
    say(f"worker {child.process.pid}{where} {how_it_ended(code)}: again in {pause:g} s")


def _restart(child: _Child) -> None:
    fresh = _start(child.device, after=child.name)
    child.mark, child.process = fresh.mark, fresh.process
    child.restart_at = None
