"""The embedded broker with real servers, real processes and real kills."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kombu import Connection

from db import redis_server
from db.embedded import broker_url, embedded_broker, socket_path
from db.errors import BrokerUnavailable

DEADLINE = 20.0

USER = """
import sys
from pathlib import Path
from db.embedded import embedded_broker
with embedded_broker(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


class User:
    """Another process inside `embedded_broker(home)`."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def entered(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> int:
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose path a URL must quote; its servers are ended, whatever the test did."""
    folder = tmp_path / "a home, 100%25 #1?;é"
    yield folder
    for process in servers(folder):
        process.kill()


@pytest.fixture
def new_user(home: Path) -> Iterator[Callable[[], User]]:
    users: list[User] = []

    def make() -> User:
        users.append(User(home))
        return users[-1]

    yield make
    for user in users:
        user.kill()


def servers(home: Path) -> list[psutil.Process]:
    """The server processes of this home."""
    path, found = str(socket_path(home)), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(path in word for word in process.cmdline()):
                found.append(process)
    return found


def only_server(home: Path) -> psutil.Process:
    (server,) = servers(home)
    return server


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def put(home: Path, message: str) -> None:
    with Connection(broker_url(home)) as connection:
        connection.SimpleQueue("tests").put({"message": message})


def take(home: Path) -> str:
    with Connection(broker_url(home)) as connection:
        message = connection.SimpleQueue("tests").get(timeout=DEADLINE)
        message.ack()
        return str(message.payload["message"])


def fake_server(folder: Path, script: str) -> Path:
    path = folder / "fake-server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def of_source(source: str) -> Path:
    found = [s.path for s in redis_server._candidates(None) if s.source == source and s.usable]
    if not found:
        pytest.skip(f"no Redis-compatible server from {source} here")
    return found[0]


@pytest.mark.parametrize("source", ["PATH", "wheel"])
def test_given_no_server_when_a_user_enters_and_leaves_then_it_serves_only_meanwhile(
    home: Path, source: str
) -> None:
    with embedded_broker(home, of_source(source)) as url:
        server = only_server(home)
        put(home, "hello")

        assert url == broker_url(home)
        assert take(home) == "hello"
        assert stat.S_IMODE(socket_path(home).stat().st_mode) == 0o700
        assert os.getsid(server.pid) == server.pid, "Ctrl-C in our terminal would reach it"

    assert not socket_path(home).exists()
    eventually(lambda: not servers(home))


def test_given_two_users_when_they_leave_then_the_last_one_stops_the_server(
    home: Path, new_user: Callable[[], User]
) -> None:
    first, second = new_user(), new_user()
    assert first.entered() == second.entered() == broker_url(home)
    server = only_server(home)

    assert first.leave() == 0
    assert only_server(home) == server
    put(home, "still there")

    assert second.leave() == 0
    assert not servers(home)


def test_given_two_users_in_one_process_when_one_leaves_then_the_other_is_still_served(
    home: Path,
) -> None:
    with embedded_broker(home):
        with embedded_broker(home):
            server = only_server(home)
        assert only_server(home) == server
    assert not servers(home)


def test_given_a_killed_user_when_the_next_one_comes_then_it_uses_and_stops_the_same_server(
    home: Path, new_user: Callable[[], User]
) -> None:
    killed = new_user()
    killed.entered()
    server = only_server(home)
    killed.kill()
    assert only_server(home) == server

    with embedded_broker(home):
        assert only_server(home) == server

    assert not servers(home)


def test_given_ctrl_c_in_the_terminal_when_it_ends_the_user_then_the_user_stops_the_server(
    home: Path, new_user: Callable[[], User]
) -> None:
    user = new_user()
    user.entered()
    os.killpg(user.process.pid, signal.SIGINT)
    user.process.wait(DEADLINE)
    assert not servers(home)


def test_given_four_users_at_once_when_none_serves_yet_then_one_server_starts(
    home: Path, new_user: Callable[[], User]
) -> None:
    users = [new_user() for _ in range(4)]
    assert {user.entered() for user in users} == {broker_url(home)}
    only_server(home)
    assert [user.leave() for user in users] == [0, 0, 0, 0]
    assert not servers(home)


def test_given_a_message_when_the_server_is_stopped_and_started_then_it_is_still_there(
    home: Path,
) -> None:
    with embedded_broker(home):
        put(home, "kept")
    with embedded_broker(home):
        assert take(home) == "kept"


def test_given_a_user_when_the_server_is_killed_then_another_one_takes_its_place(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.embedded.KEEP_INTERVAL", 0.05)
    with embedded_broker(home):
        killed = only_server(home)
        killed.kill()
        eventually(lambda: killed not in servers(home))
        eventually(lambda: redis_server.ping(socket_path(home)) is redis_server.Answer.READY)
        put(home, "hello")
        assert take(home) == "hello"
    assert not servers(home)


def test_given_a_killed_server_and_no_user_when_one_enters_then_the_stale_socket_is_replaced(
    home: Path, new_user: Callable[[], User]
) -> None:
    user = new_user()
    user.entered()
    server = only_server(home)
    user.kill()
    server.kill()
    eventually(lambda: not servers(home))
    assert socket_path(home).exists()

    with embedded_broker(home):
        put(home, "hello")
        assert take(home) == "hello"


def test_given_a_server_that_is_just_ending_when_a_user_enters_then_another_one_starts(
    home: Path,
) -> None:
    with embedded_broker(home):
        pass
    ending = socket.socket(socket.AF_UNIX)
    with ending:
        ending.bind(os.fsencode(socket_path(home)))
        ending.listen()
        threading.Timer(0.3, ending.close).start()  # it accepts and never answers, then is gone
        with embedded_broker(home):
            put(home, "hello")
            assert take(home) == "hello"


def test_given_a_server_that_hangs_when_a_user_enters_then_the_message_says_what_to_do(
    home: Path, new_user: Callable[[], User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "START_TIMEOUT", 0.1)
    user = new_user()
    user.entered()
    server = only_server(home)
    server.suspend()
    try:
        with pytest.raises(BrokerUnavailable, match=r"does not answer: end it .*server\.pid"):
            _enter(home)
    finally:
        server.resume()
    assert int((home / "broker" / "server.pid").read_text()) == server.pid


def test_given_messages_that_no_server_can_read_when_a_user_enters_then_they_are_set_aside(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with embedded_broker(home):
        put(home, "lost")
    data = home / "broker" / "data"
    for file in data.rglob("*.aof*"):
        file.write_bytes(b"not a log of Redis\n" * 9)

    with caplog.at_level(logging.WARNING), embedded_broker(home):
        put(home, "new")
        assert take(home) == "new"

    assert "could not read its old messages" in caplog.text
    assert (home / "broker" / "data.unreadable").is_dir()


def test_given_a_home_with_a_long_path_when_a_user_enters_then_a_short_private_folder_is_used(
    tmp_path: Path,
) -> None:
    long = tmp_path.joinpath(*["a-rather-long-folder-name"] * 6)
    path = socket_path(long)
    assert len(os.fsencode(path)) <= 103
    assert path == socket_path(long / ".." / long.name)
    try:
        with embedded_broker(long):
            put(long, "hello")
            assert take(long) == "hello"
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert not servers(long)
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)


def test_given_a_short_folder_that_is_a_link_when_a_user_enters_then_it_is_refused(
    tmp_path: Path,
) -> None:
    long = tmp_path.joinpath(*["a-rather-long-folder-name"] * 6)
    trap = socket_path(long).parent
    trap.symlink_to(tmp_path)
    try:
        with pytest.raises(BrokerUnavailable, match="not a folder of this user's"):
            _enter(long)
    finally:
        trap.unlink()


def test_given_users_on_another_host_when_no_server_is_reachable_then_none_is_started(
    home: Path,
) -> None:
    with embedded_broker(home):
        pass
    broker = home / "broker"
    (broker / "host").write_text("another-host\n")
    with (broker / "users.lock").open("a+") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(BrokerUnavailable, match="in use on host another-host"):
            _enter(home)
    _enter(home)
    assert not servers(home)


def test_given_a_server_that_ends_at_once_when_a_user_enters_then_its_last_words_are_told(
    home: Path, tmp_path: Path
) -> None:
    kept = home / "broker" / "data" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    script = (
        '[ "$1" = --version ] && echo "Redis server v=7.0.0" && exit\n'
        'echo "1:M 01 Jan 2026 00:00:00.000 # Out of luck"; exit 1'
    )
    with pytest.raises(BrokerUnavailable, match=r"did not start: Out of luck; see .*server\.log"):
        _enter(home, fake_server(tmp_path, script))
    assert kept.exists()


def test_given_a_home_that_is_a_file_when_a_user_enters_then_the_message_names_it(
    home: Path,
) -> None:
    home.write_text("")
    with pytest.raises(BrokerUnavailable, match=r"can't use .*broker: Not a directory"):
        _enter(home)


def _enter(home: Path, server: Path | None = None) -> None:
    with embedded_broker(home, server):
        pass
