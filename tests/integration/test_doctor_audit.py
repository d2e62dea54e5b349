"""`promptmill doctor --audit` with real databases: what it prints, and its exit code."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from db.database import Database
from db.settings import settings
from producer.cli import main
from tests.support.by_hand import by_hand
from tests.support.services import Postgres
from tests.support.stored import a_batch, a_claim, a_worker


@pytest.fixture(autouse=True)
def set_up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands use the test's database, where it has one. Nothing listens for the broker."""
    if "database_url" in request.fixturenames:
        monkeypatch.setenv("PROMPTMILL_DATABASE_URL", request.getfixturevalue("database_url"))
    monkeypatch.setenv("PROMPTMILL_BROKER_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()


def audited(*options: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--audit", *options])


def test_given_a_sound_database_when_audited_then_every_promise_is_listed_and_the_exit_is_0(
    database: Database,
) -> None:
    a_batch(database, 8)
    assert a_claim(database, a_worker(database)) is not None
    done = audited()
    assert done.exit_code == 0, done.output
    assert "  ok  audit: lines: a batch's jobs are the lines 1 to its total" in done.output
    assert all(line.startswith("  ok  ") for line in done.output.splitlines())
    # The broker is away, and no concern of the audit's.
    assert "broker" not in done.output


def test_given_a_broken_database_when_audited_then_it_says_what_where_and_what_to_do(
    database: Database,
) -> None:
    batch = a_batch(database, 8)
    by_hand(database, "DELETE FROM chunks")
    done = audited()
    assert done.exit_code == 1
    shown = ", ".join(f"{batch.id}-{line}" for line in range(1, 6))
    assert (
        " bad  audit: stranded jobs: 8 jobs against 'every open job is in a chunk that is queued, "
        f"running or held': {shown}, …\n      → nothing runs them any more"
    ) in done.output


def test_given_a_broken_database_when_audited_for_programs_then_it_is_an_object_a_check(
    database: Database,
) -> None:
    batch = a_batch(database, 4)
    by_hand(database, "UPDATE batches SET failed=1")
    done = audited("--json")
    assert done.exit_code == 1
    checks = [orjson.loads(line) for line in done.output.splitlines()]
    assert {frozenset(check) for check in checks} == {
        frozenset({"name", "state", "finding", "advice"})
    }
    (bad,) = [check for check in checks if check["state"] != "ok"]
    assert (bad["name"], bad["state"]) == ("audit: counters", "error")
    assert bad["finding"].startswith("1 batch against ")
    assert bad["finding"].endswith(f": {batch.id}")


def test_given_a_broken_batch_when_one_batch_is_audited_then_only_that_one_counts(
    database: Database,
) -> None:
    broken, sound = a_batch(database, 4), a_batch(database, 4)
    by_hand(database, "DELETE FROM chunks WHERE batch_id=:broken", {"broken": broken.key})
    assert audited("--batch", sound.id).exit_code == 0
    assert audited("--batch", broken.id).exit_code == 1
    unknown = audited("--batch", "b22222222222")
    assert unknown.exit_code == 1
    assert "no batch b22222222222" in unknown.output


def test_given_a_dead_worker_and_no_other_when_audited_then_it_warns(database: Database) -> None:
    a_batch(database, 4)
    assert a_claim(database, a_worker(database)) is not None
    by_hand(database, "UPDATE chunks SET lease_expires_at=1; UPDATE workers SET heartbeat_at=1")
    done = audited()
    assert done.exit_code == 0
    assert "look  audit: overdue leases: 1 chunk against" in done.output
    assert "→ start a worker" in done.output


def test_given_no_database_yet_when_audited_then_nothing_is_made(tmp_path: Path) -> None:
    done = audited()
    assert done.exit_code == 0
    assert "the first command makes it" in done.output
    assert not (tmp_path / "home").exists()


def test_given_a_database_without_a_schema_when_audited_then_the_command_is_named(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.database(schema=False) as url:
        monkeypatch.setenv("PROMPTMILL_DATABASE_URL", url)
        settings.cache_clear()
        done = audited()
    assert done.exit_code == 1
    assert "run 'promptmill db upgrade'" in done.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--batch", "b22222222222"], "--batch needs --audit"),
        (["--audit", "--model", "m"], "--model and --audit exclude each other"),
    ],
)
def test_given_options_that_do_not_fit_when_called_then_it_is_refused(
    arguments: list[str], reason: str
) -> None:
    done = CliRunner().invoke(main, ["doctor", *arguments])
    assert done.exit_code == 2
    assert reason in done.output
