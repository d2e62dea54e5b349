"""Real processes: the command line and workers, started, awaited and ended by their pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_TESTS_ONLY = "PROMPTMILL_TEST_"

#: Seconds after which a condition is given up: far more than any test needs.
DEADLINE = 60.0


def eventually(look: Callable[[], T | None], *, what: str, deadline: float = DEADLINE) -> T:
    """The first truthy answer of `look`; fails the test at the deadline."""
    end = time.monotonic() + deadline
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not after {deadline:g} s (last: {found!r})"
        time.sleep(0.05)  # between two looks, never instead of one


def promptmill(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        command(*arguments),
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        env=environment(env),
        timeout=timeout,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def promptmill_json(*arguments: str, env: Mapping[str, str] | None = None) -> Any:
    """The JSON that a command prints under `--json`; it must succeed."""
    done = promptmill(*arguments, "--json", env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from producer.cli import main; main()", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, with ours in front, and without what only tests understand."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(_TESTS_ONLY)}
    return {**own, "PYTHONPATH": str(Path(__file__).parents[2]), **(extra or {})}


class WorkerProcess:
    """A worker in a process of its own, with its log."""

    def __init__(
        self, log: Path, env: Mapping[str, str], *arguments: str, module: str = "worker"
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=environment(env),
                start_new_session=True,
            )

    def ready(self) -> str:
        """Wait for its one honest line; it."""

        def look() -> str | None:
            assert self.process.poll() is None, self.said()
            lines = [line for line in self.said().splitlines() if "ready:" in line]
            return lines[0] if lines else None

        return eventually(look, what="the worker is ready")

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, timeout: float = DEADLINE) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def workers(folder: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """A maker of workers (env, *arguments); whatever is left of them is killed at the end."""
    made: list[WorkerProcess] = []

    def make(env: Mapping[str, str], *arguments: str, module: str = "worker") -> WorkerProcess:
        folder.mkdir(exist_ok=True)
        log = folder / f"worker-{len(made)}.log"
        made.append(WorkerProcess(log, env, *arguments, module=module))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.kill()
