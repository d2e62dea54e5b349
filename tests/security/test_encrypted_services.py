"""Passwords and TLS: a mill works over them, and nobody is trusted who can't show a certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.database import Database
from db.migrate import upgrade
from db.settings import Settings
from tests.acceptance.mill import Mill
from tests.support.certificates import Certificates, make_certificates
from tests.support.processes import eventually, workers
from tests.support.servers import PrivatePostgres, PrivateRedis

_PASSWORD = "marker-password-of-redis"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ours") / "certificates")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority that has signed nothing here."""
    return make_certificates(tmp_path_factory.mktemp("theirs") / "certificates")


@pytest.fixture
def encrypted(tmp_path: Path, certificates: Certificates) -> Iterator[Mill]:
    """PostgreSQL and Redis, both with a password and with TLS alone."""
    with (
        PrivateRedis(tmp_path / "redis", password=_PASSWORD, certificates=certificates) as broker,
        PrivatePostgres(certificates=certificates) as server,
        workers(tmp_path / "workers") as start,
    ):
        database = Database(Settings(database_url=server.url))
        upgrade(database)
        database.close()
        env = {"PROMPTMILL_DATABASE_URL": server.url, "PROMPTMILL_BROKER_URL": broker.url}
        made = Mill(tmp_path, env, start)
        yield made
        made.client.close()


def test_given_tls_and_passwords_when_a_batch_runs_then_all_of_it_works(encrypted: Mill) -> None:
    worker = encrypted.worker()
    batch = encrypted.submit(20)
    encrypted.finished(batch)
    encrypted.shares(batch)
    assert len(encrypted.lines("workers", "--json")) == 1
    assert all(one["state"] != "error" for one in encrypted.lines("doctor", "--json"))
    assert "broker_away" not in worker.said()


def test_given_a_redis_that_can_not_prove_itself_when_used_then_it_is_refused(
    encrypted: Mill, strangers: Certificates
) -> None:
    url = encrypted.env["PROMPTMILL_BROKER_URL"]
    plain = url.partition("?")[0]
    wrong = {
        "another authority": f"{plain}?ssl_ca_certs={strangers.authority}",
        "the system's authorities": plain,
        "no TLS": plain.replace("rediss://", "redis://"),
        "no password": url.replace(f":{_PASSWORD}@", ""),
        "another password": url.replace(_PASSWORD, "marker-guess"),
    }
    for what, broker in wrong.items():
        # Without TLS it only hangs up, as one that restarts does: that alone is waited for.
        patience = "0" if what == "no TLS" else "600"
        done = encrypted.run(
            "submit", encrypted.numbered(2), "--model", encrypted.model,
            env={"PROMPTMILL_BROKER_URL": broker, "PROMPTMILL_PATIENCE": patience},
        )  # fmt: skip
        assert done.returncode == 1, what
        (line,) = done.stderr.splitlines()
        assert line.startswith("promptmill: can't reach Redis at redis"), what
        assert "check PROMPTMILL_BROKER_URL" in line, what
        assert "marker-" not in line, what
        if "authorit" in what:
            assert "certificate verify failed" in line, what
    assert encrypted.client.batches() == []


def test_given_a_postgres_that_can_not_prove_itself_when_used_then_it_is_refused(
    encrypted: Mill, strangers: Certificates
) -> None:
    plain = encrypted.env["PROMPTMILL_DATABASE_URL"].partition("?")[0]
    wrong = {
        "another authority": (
            f"{plain}?sslmode=verify-full&sslrootcert={strangers.authority}",
            "certificate verify failed",
        ),
        "no TLS": (f"{plain}?sslmode=disable", "no encryption"),
    }
    for what, (database, reason) in wrong.items():
        done = encrypted.run("list", env={"PROMPTMILL_DATABASE_URL": database})
        assert done.returncode == 1, what
        (line,) = done.stderr.splitlines()
        assert line.startswith("promptmill: can't use database postgresql+psycopg://postgres:***@")
        assert reason in line, what
        assert line.endswith("check PROMPTMILL_DATABASE_URL"), what
        assert "marker-" not in line, what


def test_given_a_worker_with_another_authority_when_it_starts_then_it_takes_no_message(
    encrypted: Mill, strangers: Certificates
) -> None:
    plain = encrypted.env["PROMPTMILL_BROKER_URL"].partition("?")[0]
    worker = encrypted.worker(PROMPTMILL_BROKER_URL=f"{plain}?ssl_ca_certs={strangers.authority}")

    def complaint() -> str | None:
        return next((one for one in worker.said().splitlines() if "=broker_away" in one), None)

    line = eventually(complaint, what="the worker says why")
    assert "certificate verify failed" in line
    assert "marker-" not in worker.said()
