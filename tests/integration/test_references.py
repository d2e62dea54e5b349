"""Batches and jobs by id and by name, through the client, on both databases."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import update

from db.database import Database
from db.errors import ConflictError, NotFoundError, UsageError
from db.records import Batch, Job
from db.schema import batches as table
from db.settings import Settings
from db.states import BatchState
from producer.client import Client
from tests.support.stored import a_batch, batch_now


@pytest.fixture
def client(database_url: str) -> Iterator[Client]:
    with Client(Settings(database_url=database_url, broker_url="redis://127.0.0.1:1/0")) as client:
        yield client


def test_batch_and_job_are_found_by_name(database: Database, client: Client) -> None:
    batch = a_batch(database, 4, name="nightly run")
    assert client.batch("nightly run").id == batch.id
    job = client.status("nightly run-3")
    assert isinstance(job, Job)
    assert job.id == f"{batch.id}-3"


def test_newest_of_a_name_is_taken_and_a_warning_says_so(
    database: Database, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        a_batch(database, 4, name="nightly")
    newest = a_batch(database, 4, name="nightly")
    with caplog.at_level(logging.WARNING):
        assert client.batch("nightly").id == newest.id
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"3 batches are named 'nightly': this is the newest, {newest.id} of ")


@pytest.mark.parametrize("method", ["cancel", "delete", "retry"])
def test_ambiguous_name_is_refused_with_the_candidates(
    database: Database, client: Client, method: str
) -> None:
    named = [a_batch(database, 4, name="nightly") for _ in range(7)]
    with pytest.raises(ConflictError) as refused:
        getattr(client, method)("nightly")
    message = refused.value.message
    assert message.startswith("7 batches are named 'nightly': give an id, one of ")
    assert message.endswith(" and 2 more")
    assert all(batch.id in message for batch in named[2:])
    assert all(batch_now(database, batch).state == BatchState.QUEUED for batch in named)


def test_name_of_one_batch_serves_every_change(database: Database, client: Client) -> None:
    batch = a_batch(database, 4, name="nightly")
    assert client.pause("nightly").state == BatchState.PAUSED
    assert client.resume("nightly").state == BatchState.QUEUED
    assert client.cancel("nightly").id == batch.id
    assert client.retry("nightly") == 0
    client.delete("nightly")
    assert client.batches() == []


def test_id_goes_before_a_name_that_looks_like_it(database: Database, client: Client) -> None:
    first = a_batch(database, 4)
    a_batch(database, 4, name=first.id)
    assert client.batch(first.id).id == first.id


def test_name_that_looks_like_an_id_is_found(database: Database, client: Client) -> None:
    batch = a_batch(database, 4, name="bk3v9xq2h7mz-3")
    assert client.batch("bk3v9xq2h7mz-3").id == batch.id


def test_name_with_a_number_at_its_end_goes_before_a_job(
    database: Database, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    shorter = a_batch(database, 4, name="run")
    longer = a_batch(database, 4, name="run-3")
    found = client.status("run-3")
    assert isinstance(found, Batch)
    assert found.id == longer.id
    assert f"for the job, give {shorter.id}-3" in caplog.text
    with pytest.raises(ConflictError, match="give an id"):
        client.retry("run-3")
    # A command that takes no job has no doubt.
    caplog.clear()
    assert client.batch("run-3").id == longer.id
    assert caplog.records == []


def test_job_of_an_ambiguous_name_is_refused(database: Database, client: Client) -> None:
    named = [a_batch(database, 4, name="run") for _ in range(2)]
    with pytest.raises(ConflictError, match=f"{named[1].id}-3 .*{named[0].id}-3 "):
        client.status("run-3")


@pytest.mark.parametrize(
    "text", ["no such", "bk3v9xq2h7mz", "bk3v9xq2h7mz-4", "run-5", "", "x" * 300]
)
def test_unknown_reference_names_itself(database: Database, client: Client, text: str) -> None:
    a_batch(database, 4, name="run")
    with pytest.raises(NotFoundError, match=r"^no batch (has the id or the name|bk3v9xq2h7mz: )"):
        client.status(text)


def test_job_where_a_batch_is_wanted_is_refused(database: Database, client: Client) -> None:
    batch = a_batch(database, 4, name="run")
    for text in (f"{batch.id}-2", "run-2"):
        with pytest.raises(NotFoundError, match=f"is a job: .* such as {batch.id}"):
            client.batch(text)


def listed(client: Client, **filters: object) -> list[str | None]:
    return [batch.name for batch in client.batches(**filters)]  # type: ignore[arg-type]


def test_list_filters_by_state_model_name_and_age(database: Database, client: Client) -> None:
    a_batch(database, 4, name="nightly-1", model="org/Small-1B")
    a_batch(database, 4, name="weekly_1", model="/models/small.gguf")
    old = a_batch(database, 4, name="100%", model="org/large")
    client.pause("weekly_1")
    with database.write() as connection:
        connection.execute(update(table).where(table.c.id == old.key).values(created_at=1000.0))

    assert listed(client) == ["100%", "weekly_1", "nightly-1"]
    assert listed(client, states=["paused"]) == ["weekly_1"]
    assert listed(client, states=["queued", "paused"], limit=2) == ["100%", "weekly_1"]
    assert listed(client, model="SMALL") == ["weekly_1", "nightly-1"]
    assert listed(client, model="org/*") == ["100%", "nightly-1"]
    assert listed(client, name="y_1") == ["weekly_1"]
    assert listed(client, name="*ly-?") == ["nightly-1"]
    assert listed(client, name="%") == ["100%"]
    assert listed(client, since=86_400) == ["weekly_1", "nightly-1"]
    assert listed(client, name="nightly", states=["paused"]) == []


def test_list_refuses_an_unknown_state(client: Client) -> None:
    with pytest.raises(UsageError, match="'running' is not a batch's state"):
        client.batches(states=["running"])
