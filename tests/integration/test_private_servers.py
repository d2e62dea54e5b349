"""The servers that tests start for themselves do what fault tests rely on."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import redis

from tests.support.certificates import make_certificates
from tests.support.servers import PrivatePostgres, PrivateRedis


def _rows(server: PrivatePostgres) -> list[int]:
    with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM kept ORDER BY 1")]


def test_given_a_private_redis_when_stopped_and_killed_then_it_comes_back_with_its_data(
    tmp_path: Path,
) -> None:
    with PrivateRedis(tmp_path / "redis", appendonly=True) as server, server.client() as client:
        client.set("kept", 1)
        server.stop()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert client.get("kept") == b"1"
        server.kill()
        server.start()
        assert client.get("kept") == b"1"
        server.restart_empty()
        assert client.get("kept") is None
    assert server.process.poll() is not None


def test_given_a_private_redis_when_paused_then_it_is_silent_and_goes_on(tmp_path: Path) -> None:
    with PrivateRedis(tmp_path / "redis") as server:
        impatient = redis.Redis.from_url(server.url, socket_timeout=0.2)
        impatient.ping()
        with server.paused(), pytest.raises(redis.TimeoutError):
            impatient.ping()
        assert server.client().ping()
        server.pause(0.01)
        assert redis.Redis(
            unix_socket_path=server.socket_url.removeprefix("redis+socket://")
        ).ping()


def test_given_a_private_redis_with_tls_and_password_when_asked_then_only_so(
    tmp_path: Path,
) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    with PrivateRedis(tmp_path / "redis", password="hush", certificates=certificates) as server:
        assert server.client().ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(server.url.replace(":hush@", "")).ping()
        with pytest.raises(redis.ConnectionError):
            redis.Redis(port=server.port, password="hush").ping()


def test_given_a_private_postgres_when_stopped_and_killed_then_it_comes_back_with_its_data() -> (
    None
):
    with PrivatePostgres() as server:
        with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE kept (number int)")
            connection.execute("INSERT INTO kept VALUES (1)")
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            _rows(server)
        server.start()
        assert _rows(server) == [1]
        server.kill()
        server.start()
        assert _rows(server) == [1]
        server.stop("immediate")
        server.start()
        assert _rows(server) == [1]
    assert server.process.poll() is not None


def test_given_a_private_postgres_with_tls_when_asked_without_then_it_refuses(
    tmp_path: Path,
) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    with PrivatePostgres(certificates=certificates) as server:
        url = server.url.replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT ssl FROM pg_stat_ssl").fetchone() == (True,)
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            psycopg.connect(url.split("?")[0] + "?sslmode=disable")
