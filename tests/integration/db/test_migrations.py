"""The schema: one head, the same on both databases, made once whoever asks first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import delete, insert, inspect, text

from db.database import Database
from db.errors import SchemaMismatch
from db.input_columns import InputColumn
from db.migrate import alembic_config, ready, upgrade
from db.modes import Mode
from db.queries import batches
from db.queries.results import stream
from db.sample_counts import SampleCounts
from db.schema import REVISIONS, metadata, results
from db.settings import Settings
from tests.support.crowd import at_once
from tests.support.processes import environment
from tests.support.services import Postgres
from tests.support.stored import a_batch

HEAD = REVISIONS[-1]
UPGRADE = """
import sys
from db.database import Database
from db.migrate import upgrade
from db.settings import Settings
print(upgrade(Database(Settings(database_url=sys.argv[1]))))
"""


@contextmanager
def empty_database(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database(schema=False) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table."""
    with empty_database(request.param, tmp_path, request) as url:
        yield url


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    made = Database(Settings(database_url=empty_url))
    yield made
    made.close()


def set_revision(database: Database, revision: str) -> None:
    with database.write() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
        )


def test_given_the_migrations_when_listed_then_they_are_those_that_the_program_knows() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert script.get_heads() == [HEAD]
    assert [one.revision for one in reversed(list(script.walk_revisions()))] == list(REVISIONS)


def test_given_an_upgraded_database_when_compared_with_the_models_then_nothing_differs(
    database: Database,
) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, metadata)
    if database.dialect == "sqlite":
        # SQLite does not tell that a column is indexed in descending order: the next test does.
        found = [one for one in found if getattr(one[1], "name", "") != "ix_chunks_claim"]
    assert found == []


def test_given_sqlite_when_migrated_or_made_from_the_models_then_the_indexes_are_the_same(
    tmp_path: Path,
) -> None:
    migrated, made = (
        Database(Settings(database_url=f"sqlite:///{tmp_path / name}.db")) for name in "ab"
    )
    upgrade(migrated)
    with made.write() as connection:
        metadata.create_all(connection)

    def indexes(database: Database) -> set[str]:
        with database.read() as connection:
            found = text("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
            return {" ".join(str(one).split()) for one in connection.execute(found).scalars()}

    assert indexes(migrated) == indexes(made)
    assert any("priority DESC" in one for one in indexes(made))
    migrated.close()
    made.close()


def test_given_no_schema_when_upgraded_twice_then_the_second_changes_nothing(
    empty: Database,
) -> None:
    assert empty.revision() is None
    assert upgrade(empty) == (None, HEAD)
    assert upgrade(empty) == (HEAD, HEAD)
    assert empty.revision() == HEAD
    ready(empty)


def test_given_no_schema_when_used_then_the_message_says_how_to_make_one(empty: Database) -> None:
    with pytest.raises(SchemaMismatch) as failure:
        ready(empty)
    assert failure.value.message == (
        f"database {empty.url} has no promptmill schema: run 'promptmill db upgrade'"
    )


def test_given_an_older_schema_when_used_then_the_message_says_how_to_upgrade(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.migrate.REVISIONS", (HEAD, "9999"))
    with pytest.raises(SchemaMismatch) as failure:
        ready(database)
    assert failure.value.message.endswith(
        f" has the older schema {HEAD}: run 'promptmill db upgrade'"
    )


def test_given_a_newer_schema_when_used_or_upgraded_then_a_newer_program_is_asked_for(
    database: Database,
) -> None:
    set_revision(database, "9999")
    for use in (ready, upgrade):
        with pytest.raises(SchemaMismatch) as failure:
            use(database)
        assert "has schema 9999, newer than this promptmill knows" in failure.value.message
        assert failure.value.message.endswith("install a newer promptmill")
    assert database.revision() == "9999"


def test_given_no_schema_when_many_threads_upgrade_at_once_then_all_find_it(
    empty_url: str,
) -> None:
    def one() -> str:
        database = Database(Settings(database_url=empty_url))
        try:
            return upgrade(database)[1]
        finally:
            database.close()

    assert at_once([one] * 6) == [HEAD] * 6


def test_given_no_schema_when_two_processes_upgrade_at_once_then_both_find_it(
    empty_url: str, empty: Database
) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, empty_url], env=environment(), stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0
    ready(empty)


def test_given_an_upgrade_that_breaks_when_looked_at_then_there_is_no_half_a_schema(
    empty: Database,
) -> None:
    def killed_at_the_end() -> None:
        with empty.write() as connection:
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed_at_the_end()
    assert empty.revision() is None
    assert upgrade(empty) == (None, HEAD)


def migrate(database: Database, run: Callable[[Config, str], None], revision: str) -> None:
    with database.write() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        run(config, revision)


def test_given_workers_of_an_older_release_when_upgraded_and_back_then_they_are_kept(
    empty: Database,
) -> None:
    migrate(empty, command.upgrade, "0002")
    older = "name, host, pid, queue, engine, engine_version, model, device, dtype, parameters, "
    older += "capacity, started_at, heartbeat_at"
    with empty.write() as connection:
        connection.execute(
            text(
                f"INSERT INTO workers ({older}) VALUES "
                "('w', 'h', 1, 'q', 'echo', '1', 'm', 'cpu', 'text', 0, 1, 1.5, 2.5)"
            )
        )

    def stored(columns: str) -> tuple[Any, ...]:
        with empty.read() as connection:
            return tuple(connection.execute(text(f"SELECT {columns} FROM workers")).one())

    before = stored(older)
    for _ in range(2):
        assert upgrade(empty) == ("0002", HEAD)
        assert stored(older) == before
        assert stored("backend, hardware, weights, tokenizer") == (None,) * 4
        migrate(empty, command.downgrade, "0002")
        assert empty.revision() == "0002"
        with empty.read() as connection:
            columns = {one["name"] for one in inspect(connection).get_columns("workers")}
        assert not columns & {"backend", "hardware", "weights", "tokenizer"}
        assert stored(older) == before


def test_given_an_embedded_database_when_first_used_then_it_is_created_for_this_user_alone(
    tmp_path: Path,
) -> None:
    home = tmp_path / "deep" / "home"

    def one() -> None:
        database = Database(Settings(home=home))
        ready(database)
        database.close()

    at_once([one] * 4)
    assert (home / "promptmill.db").exists()
    assert home.stat().st_mode & 0o777 == 0o700


def test_given_an_embedded_database_of_a_newer_program_when_used_then_it_is_left_alone(
    tmp_path: Path,
) -> None:
    database = Database(Settings(home=tmp_path))
    ready(database)
    set_revision(database, "9999")
    with pytest.raises(SchemaMismatch, match="newer than this promptmill knows"):
        ready(database)
    database.close()


def test_given_results_of_the_second_schema_when_upgraded_then_they_stay_and_are_generated_text(
    empty: Database,
) -> None:
    with empty.write() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO batches (id, uid, model, queue, state, priority, params, metadata,"
                " chunk_size, created_at, touched_at)"
                " VALUES (1, 'b', 'm', 'q', 'completed', 5, '{}', '{}', 4, 1, 1)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO results (batch_id, line, sample, text, finish_reason,"
                " completion_tokens) VALUES (1, 1, 0, 'kept', 'stop', 2)"
            )
        )
    assert upgrade(empty) == ("0002", HEAD)
    with empty.read() as connection:
        assert batches.get(connection, "b").mode is Mode.GENERATE
        found = connection.execute(text("SELECT * FROM results")).one()._asdict()
    assert (found["text"], found["finish_reason"], found["completion_tokens"]) == (
        "kept",
        "stop",
        2,
    )
    assert (found["logprob"], found["embedding"]) == (None, None)


def test_stored_samples_are_counted_by_the_upgrade(database: Database) -> None:
    migrate(database, command.downgrade, "0006")
    rows = [("stop", 9, None), ("length", 4, "Hm"), ("length", 7, None)]
    with database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO batches (id, uid, model, queue, state, priority, params, metadata,"
                " chunk_size, created_at, touched_at)"
                " VALUES (1, 'b1', 'm', 'q', 'completed', 5, '{}', '{}', 4, 1, 1),"
                " (2, 'b2', 'm', 'q', 'completed', 5, '{}', '{}', 4, 1, 1)"
            )
        )
        for line, (reason, tokens, reasoning) in enumerate(rows, start=1):
            connection.execute(
                text(
                    "INSERT INTO results (batch_id, line, sample, finish_reason,"
                    " completion_tokens, reasoning) VALUES (1, :line, 0, :reason, :tokens, :hm)"
                ),
                {"line": line, "reason": reason, "tokens": tokens, "hm": reasoning},
            )
    assert upgrade(database) == ("0006", HEAD)
    with database.read() as connection:
        counts = [batches.get(connection, uid).sample_counts for uid in ("b1", "b2")]
    assert counts == [SampleCounts(3, 2, 4, 7, with_reasoning=1), SampleCounts()]


def test_given_an_upgraded_database_when_taken_back_then_only_generated_text_is_let_go_of(
    database: Database,
) -> None:
    a_batch(database, 1)
    migrate(database, command.downgrade, "0003")
    assert upgrade(database) == ("0003", HEAD)
    a_batch(database, 1, mode=Mode.EMBED)
    with pytest.raises(RuntimeError, match="delete them first"):
        migrate(database, command.downgrade, "0003")
    assert database.revision() == HEAD
    ready(database)


def test_given_an_answer_with_reasoning_when_taken_back_then_it_is_not_lost(
    database: Database,
) -> None:
    with database.write() as connection:
        connection.execute(
            insert(results).values(
                batch_id=1, line=1, sample=0, text="4", completion_tokens=3, reasoning="2+2"
            )
        )
    with pytest.raises(RuntimeError, match="results have reasoning, which would be lost"):
        migrate(database, command.downgrade, "0004")
    assert database.revision() == HEAD
    with database.write() as connection:
        connection.execute(delete(results))
    migrate(database, command.downgrade, "0004")
    assert upgrade(database) == ("0004", HEAD)


def test_jobs_of_the_fifth_schema_have_no_columns_after_upgrade(empty: Database) -> None:
    migrate(empty, command.upgrade, "0005")
    with empty.write() as connection:
        connection.execute(
            text(
                "INSERT INTO batches (id, uid, model, queue, state, priority, params, metadata,"
                " chunk_size, created_at, touched_at)"
                " VALUES (1, 'b', 'm', 'q', 'completed', 5, '{}', '{}', 4, 1, 1)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO jobs (batch_id, line, state, request, finished_at)"
                """ VALUES (1, 1, 'succeeded', '{"prompt":"hello"}', 1)"""
            )
        )
    assert upgrade(empty) == ("0005", HEAD)
    with empty.read() as connection:
        batch = batches.get(connection, "b")
    assert batch.input_columns == ()
    (result,) = stream(empty, batch, with_request=True)
    assert (result.columns, result.request) == (None, '{"prompt":"hello"}')


def test_downgrade_refuses_to_lose_input_columns(database: Database) -> None:
    a_batch(database, 1, input_columns=(InputColumn("id", "int64"),), rows={1: "[7]"})
    with pytest.raises(RuntimeError, match="batches have input columns, which would be lost"):
        migrate(database, command.downgrade, "0005")
    assert database.revision() == HEAD
    with database.write() as connection:
        connection.execute(text("UPDATE batches SET columns = NULL"))
    migrate(database, command.downgrade, "0005")
    assert upgrade(database) == ("0005", HEAD)
