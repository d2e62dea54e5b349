"""A private Redis-compatible server for one home directory: the embedded default's broker.

The first user starts it, the last one out turns off the light:

    enter   lock `start.lock`; take a share of `users.lock`; PING, start it if absent; unlock
    stay    a thread PINGs it, and starts it again should it die
    leave   lock `start.lock`; if nobody else holds a share of `users.lock`, SHUTDOWN; unlock

Locks are flock(2), so the kernel frees those of a killed user; the server that such a user may
leave behind is found by PING and used by whoever comes next. The server is its own session:
Ctrl-C in a terminal does not reach it. Everything lies in `HOME/broker`, but for the socket of
a home whose path is too long for one.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

from db.errors import BrokerUnavailable
from db.redis_server import (
    Answer,
    Server,
    find_server,
    ping,
    require_server,
    settled,
    start,
    stop,
)

__all__ = ["Server", "broker_url", "embedded_broker", "find_server", "socket_path"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at whether the server still lives.
KEEP_INTERVAL = 1.0

#: Bytes of a socket's path without the closing zero: 107 on Linux, 103 on macOS.
_LONGEST_SOCKET_PATH = 103
#: Where the socket goes if the home's path is too long. Not TMPDIR: all users must agree on it.
_SHORT_DIRECTORY = Path("/tmp")  # noqa: S108 - only ever a folder in it that is checked for owner


def socket_path(home: Path) -> Path:
    """Where the server of this home listens, whether it runs or not."""
    directory = _directory(home)
    path = directory / "broker.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return _SHORT_DIRECTORY / f"promptmill-{digest}" / "broker.sock"


def broker_url(home: Path) -> str:
    """Celery's URL of the server of this home, whether it runs or not."""
    return f"redis+socket://{quote(os.fsencode(socket_path(home)))}"


@contextmanager
def embedded_broker(home: Path, server: Path | None = None) -> Iterator[str]:
    """Have the home's server running meanwhile; yields its Celery URL.

    `server` is the binary to start, should one have to be started. Several processes and
    threads may be inside at once; a process that forks meanwhile shares its claim with the
    child. Raises BrokerUnavailable.
    """
    directory = _directory(home)
    with _reported(directory):
        _make_private(directory)
        _make_private(socket_path(home).parent)
        users = (directory / "users.lock").open("a+")
    with users:
        with _lock_start(directory):
            _claim(users, home, server)
        try:
            with _kept_alive(users, home, server):
                yield broker_url(home)
        finally:
            with _lock_start(directory):
                if _alone(users):
                    stop(socket_path(home))


def _directory(home: Path) -> Path:
    return home.expanduser().resolve() / "broker"


# --- users --------------------------------------------------------------------------------


def _claim(users: IO[str], home: Path, server: Path | None) -> None:
    """Take a share of the lock and return when the server serves. Needs `_lock_start`."""
    directory, path = _directory(home), socket_path(home)
    with _reported(directory):
        alone = _alone(users)
        fcntl.flock(users, fcntl.LOCK_SH)
        answer = settled(path)
        if answer is Answer.ABSENT:
            _check_host(directory, alone)
            start(require_server(server), path, directory)
    if answer is Answer.BUSY:
        raise BrokerUnavailable(
            f"the server at {path} does not answer: end it (its process id is in "
            f"{directory / 'server.pid'}) and try again"
        )


def _alone(users: IO[str]) -> bool:
    """Whether there is no other user. Needs `_lock_start`: asking may lose the own share."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_host(directory: Path, alone: bool) -> None:
    """Refuse to start a second server on a second host; they would write one append-only file.

    On a network file system locks reach across hosts and sockets don't.
    """
    note, here = directory / "host", socket.gethostname()
    there = note.read_text("utf-8").strip() if note.exists() else here
    if there != here and not alone:
        raise BrokerUnavailable(
            f"the embedded broker in {directory} is in use on host {there}: set "
            "PROMPTMILL_BROKER_URL to a Redis that both hosts reach, or another PROMPTMILL_HOME"
        )
    note.write_text(here + "\n", "utf-8")


@contextmanager
def _kept_alive(users: IO[str], home: Path, server: Path | None) -> Iterator[None]:
    """Meanwhile a thread starts the server again whenever it has died."""
    left = threading.Event()
    keeper = threading.Thread(
        target=_keep, args=(users, home, server, left), name="embedded-broker-keeper", daemon=True
    )
    keeper.start()
    try:
        yield
    finally:
        left.set()
        keeper.join()


def _keep(users: IO[str], home: Path, server: Path | None, left: threading.Event) -> None:
    while not left.wait(KEEP_INTERVAL):
        try:
            if ping(socket_path(home)) is not Answer.ABSENT:
                continue
            logger.warning("the embedded broker died", extra={"action": "broker_died"})
            with _lock_start(_directory(home)):
                _claim(users, home, server)
        except BrokerUnavailable as error:
            logger.error("%s", error, extra={"action": "broker_restart_failed"})


# --- locks and folders --------------------------------------------------------------------


@contextmanager
def _lock_start(directory: Path) -> Iterator[None]:
    """Alone in starting and stopping this home's server; waits its turn."""
    with _reported(directory):
        guard = (directory / "start.lock").open("a+")
    with guard:
        with _reported(directory):
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _make_private(directory: Path) -> None:
    """Create it for this user alone. Raises BrokerUnavailable if it is someone else's."""
    # Apart: the mode is that of the last folder alone, and the first to start makes the home.
    if not directory.parent.exists():
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise BrokerUnavailable(
            f"{directory} is not a folder of this user's: remove it, or set PROMPTMILL_HOME to "
            "a folder of your own"
        )
    directory.chmod(0o700)


@contextmanager
def _reported(directory: Path) -> Iterator[None]:
    """Turn what the file system refuses into a message that names the folder."""
    try:
        yield
    except OSError as error:
        raise BrokerUnavailable(
            f"the embedded broker can't use {directory}: {error.strerror}; "
            "set PROMPTMILL_HOME to a writable folder on a local disk"
        ) from error
