"""One installation of promptmill under test: the command line and workers on its settings."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import psutil

from db.records import Batch, Job
from db.settings import Settings
from producer import Client
from tests.support.processes import WorkerProcess, command, environment, eventually, promptmill

#: Settings under which nothing takes longer than a test needs it to.
QUICK = {
    "PROMPTMILL_ENGINE": "echo",
    "PROMPTMILL_LEASE": "2",
    "PROMPTMILL_RECOVERY_INTERVAL": "0.3",
    "PROMPTMILL_FLUSH_INTERVAL": "0.05",
}


def echoing(*, latency: float = 0.0, capacity: int = 64, faults: bool = False) -> str:
    """The `echo` engine's options as a setting."""
    options = {"latency": latency, "capacity": capacity, "faults": "on" if faults else "off"}
    return json.dumps({name: str(value) for name, value in options.items()})


class Mill:
    """Settings, a model of its own, and what a user does with them."""

    def __init__(
        self, folder: Path, env: Mapping[str, str], start: Callable[..., WorkerProcess]
    ) -> None:
        self.folder = folder
        self.model = f"test/echo-{secrets.token_hex(4)}"
        self.env = {**QUICK, **env}
        self._start = start
        named = {
            name.removeprefix("PROMPTMILL_").lower(): value for name, value in self.env.items()
        }
        self.client = Client(Settings().with_(**named))

    def run(
        self,
        *arguments: str,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """`promptmill ARGUMENTS` to its end, whatever it is."""
        return promptmill(*arguments, env={**self.env, **(env or {})}, stdin=stdin)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        """What `promptmill ARGUMENTS` prints; it must succeed and say nothing else."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{done.stderr}{done.stdout}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The one JSON value that `promptmill ARGUMENTS --json` prints."""
        return orjson.loads(self.ok(*arguments, "--json"))

    def lines(self, *arguments: str) -> list[Any]:
        """The JSON values, one a line, that `promptmill ARGUMENTS` prints."""
        return [orjson.loads(line) for line in self.ok(*arguments).splitlines()]

    def background(self, *arguments: str) -> subprocess.Popen[str]:
        """`promptmill ARGUMENTS`, running; the caller ends it."""
        return subprocess.Popen(
            command(*arguments),
            env=environment(self.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def prompts(self, lines: Iterable[str], name: str = "prompts.txt") -> str:
        """A file of prompts, a line each."""
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return str(path)

    def numbered(self, count: int, name: str = "prompts.txt") -> str:
        return self.prompts((f"n{number} of many" for number in range(1, count + 1)), name)

    def submit(self, count: int, *options: str) -> str:
        """A batch of numbered prompts, submitted by the command line; its id."""
        model = () if "--model" in options else ("--model", self.model)
        return self.ok("submit", self.numbered(count), *model, *options).strip()

    def worker(self, options: str = echoing(), **env: str) -> WorkerProcess:
        """A worker for this installation's model, ready."""
        process = self.start_worker(options, **env)
        process.ready()
        return process

    def start_worker(
        self, options: str = echoing(), *arguments: str, module: str = "worker", **env: str
    ) -> WorkerProcess:
        """The same, not waited for: `python -m MODULE ARGUMENTS`."""
        own = {"PROMPTMILL_MODEL": self.model, "PROMPTMILL_ENGINE_OPTIONS": options}
        return self._start({**self.env, **own, **env}, *arguments, module=module)

    def until(
        self, batch: str, fits: Callable[[Batch], bool], what: str, deadline: float = 60
    ) -> Batch:
        """The batch, once it `fits`."""

        def look() -> Batch | None:
            found = self.client.batch(batch)
            return found if fits(found) else None

        return eventually(look, what=f"batch {what}", deadline=deadline)

    def finished(self, batch: str) -> Batch:
        return self.until(batch, lambda found: found.finished, "finished")

    def job(self, batch: str, line: int) -> Job:
        found = self.client.status(f"{batch}-{line}")
        assert isinstance(found, Job)
        return found

    def shares(self, batch: str) -> Counter[str]:
        """How many jobs each worker did, by its process id; every job must be there once."""
        results = list(self.client.results(batch))
        assert Counter(one.line for one in results) == Counter(
            range(1, self.client.batch(batch).total + 1)
        )
        return Counter(pid_of(one.worker) for one in results)


def pid_of(worker: str | None) -> str:
    """The process id in a worker's name (host:pid:random)."""
    assert worker is not None
    return worker.split(":")[1]


def processes_of(home: Path) -> list[psutil.Process]:
    """Every other process that has a file of this home open: commands, workers, brokers.

    (A Celery worker may rename itself, so neither its arguments nor its environment tell.)
    """
    others = (process for process in psutil.process_iter() if process.pid != os.getpid())
    return [process for process in others if _uses(process, str(home))]


def _uses(process: psutil.Process, home: str) -> bool:
    try:
        return any(file.path.startswith(home) for file in process.open_files())
    except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
        return False
