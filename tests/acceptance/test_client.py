"""The Python face: what the command line does, in a program."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from db.errors import ConflictError, NotFoundError, ParameterError, UsageError
from db.records import Batch, Job, Result
from db.states import JobState
from producer import Client
from producer.submission import InvalidInput
from tests.acceptance.mill import Mill, echoing


@pytest.fixture
def client(embedded: Mill) -> Client:
    return embedded.client


def test_given_a_worker_when_prompts_are_submitted_then_typed_results_come_back(
    embedded: Mill, client: Client
) -> None:
    embedded.worker(echoing(latency=0.02, capacity=4, faults=True))
    batch = client.submit(
        ["one two", {"prompt": "three", "custom_id": "third"}, "[[fail]]",
         {"messages": [{"role": "user", "content": "hello you"}]}],
        model=embedded.model, params={"temperature": 0}, name="a list", metadata={"who": "me"},
    )  # fmt: skip
    assert isinstance(batch, Batch)
    assert (batch.total, batch.name, batch.metadata) == (4, "a list", {"who": "me"})

    seen: list[Batch] = []
    ended = client.wait(batch.id, on_progress=seen.append, poll=0.02)

    assert ended == seen[-1] == client.status(batch.id)
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    results = client.results(batch.id, order="input")
    found = list(results)
    assert all(isinstance(one, Result) for one in found)
    assert [one.text for one in found] == ["one two", "three", None, "hello you"]
    assert [one.state for one in found].count(JobState.SUCCEEDED) == 3
    assert (found[1].custom_id, found[2].error_code) == ("third", "echo_fault")
    assert list(results) == found, "an iteration is a new look"
    assert [one.line for one in client.results(batch.id, only="failed")] == [3]

    pytest.importorskip("pandas")
    frame = results.to_pandas(provenance=True)
    assert list(frame["text"])[:2] == ["one two", "three"]
    assert frame.loc[1, "custom_id"] == "third"
    assert list(frame["seed"]) == [one.seed for one in found], "no digit is lost"


def test_data_frame_of_polars_has_exact_numbers_beside_failed_rows(
    embedded: Mill, client: Client
) -> None:
    polars = pytest.importorskip("polars")
    rows = polars.DataFrame(
        {
            "text": ["one two", "[[fail]]", "three"],
            "number": [2**53 + 1, None, -(2**63)],
            "large": polars.Series([2**64 - 1, 0, None], dtype=polars.UInt64),
            "price": polars.Series([Decimal("1.10"), None, Decimal("0.01")]),
            "took": polars.Series([timedelta(microseconds=1), None, timedelta(days=9)]),
            "at": polars.Series([datetime(2024, 1, 2, tzinfo=UTC), None, None]),
            "size": polars.Series(["high", None, "low"], dtype=polars.Enum(["low", "high"])),
            "tags": [["x", None], None, []],
        }
    )
    embedded.worker(echoing(faults=True))
    batch = client.submit(
        rows, model=embedded.model, template="{text}", params={"seed": 2**53 + 1, "temperature": 0}
    )
    client.wait(batch.id, poll=0.02)

    frame = client.results(batch.id).to_polars(provenance=True, names={"text": "answer"})

    assert frame.select(rows.columns).to_dict(as_series=False) == rows.to_dict(as_series=False)
    assert {name: frame.schema[name] for name in rows.columns} == dict(rows.schema)
    assert frame["state"].to_list() == ["succeeded", "failed", "succeeded"]
    assert frame["answer"].to_list() == ["one two", None, "three"]
    assert frame["completion_tokens"].to_list()[0] == 2
    assert frame.schema["completion_tokens"] == polars.Int32
    seeds = [result.seed for result in client.results(batch.id)]
    assert (frame["seed"].to_list(), frame.schema["seed"]) == (seeds, polars.Int64)


def test_given_an_iterator_when_submitted_then_it_is_read_once(
    embedded: Mill, client: Client
) -> None:
    def prompts() -> Iterator[str]:
        yield from (f"prompt {number}" for number in range(20_001))

    heard: list[int] = []
    batch = client.submit(prompts(), model=embedded.model, name="stream", on_progress=heard.append)
    assert batch.total == 20_001
    assert heard == [20_000, 20_001]
    again = client.submit(prompts(), model=embedded.model, name="stream")
    assert again.id == batch.id
    assert len(client.batches()) == 1


def test_given_a_path_when_submitted_then_it_is_the_file(embedded: Mill, client: Client) -> None:
    path = Path(embedded.numbered(3))
    assert client.submit(path, model=embedded.model).total == 3
    assert client.submit(str(path), model=embedded.model, priority=9).priority == 9
    rows = [{"text": "a"}, {"text": "b"}]
    batch = client.submit(rows, model=embedded.model, template="Say {text}")
    job = client.status(f"{batch.id}-2")
    assert not isinstance(job, Batch)
    assert job.request == {"prompt": "Say b"}


def test_given_bad_items_when_submitted_then_all_of_them_are_told_and_nothing_is_queued(
    embedded: Mill, client: Client
) -> None:
    items = ["fine", "", 7, {"prompt": "x", "temperature": -1}, {"promt": "x"}]
    with pytest.raises(InvalidInput) as caught:
        client.submit(items, model=embedded.model)
    assert [bad.number for bad in caught.value.bad] == [2, 3, 4, 5]
    assert caught.value.message == (
        "<items>: item 2: the prompt is empty: give it text or remove it"
        "; nothing was queued, for this and 3 more bad lines"
    )
    assert client.batches() == []
    batch = client.submit(items, model=embedded.model, skip_invalid=True)
    assert (batch.total, batch.failed) == (5, 4)


def test_given_a_broken_iterator_when_submitted_then_its_error_comes_out_and_nothing_is_queued(
    embedded: Mill, client: Client
) -> None:
    def prompts() -> Iterator[str]:
        yield "fine"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.submit(prompts(), model=embedded.model)
    assert client.batches() == []


def test_given_wrong_words_when_used_then_the_errors_have_names(
    embedded: Mill, client: Client
) -> None:
    with pytest.raises(UsageError, match="which model"):
        client.submit(["a"])
    with pytest.raises(ParameterError, match="did you mean 'temperature'"):
        client.submit(["a"], model=embedded.model, params={"temprature": 1})
    with pytest.raises(NotFoundError):
        client.status("bbbbbbbbbbbb")
    client.submit(["a"], model=embedded.model, idempotency_key="k")
    with pytest.raises(ConflictError, match="other content"):
        client.submit(["b"], model=embedded.model, idempotency_key="k")


def test_table_warns_once_of_a_name_that_the_input_has(
    embedded: Mill, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": 7, "text": "a"}]
    results = client.results(client.submit(rows, model=embedded.model, template="{text}").id)
    results.to_arrow()
    results.to_arrow()
    (record,) = caplog.records
    assert record.getMessage().startswith("'id' is written as 'promptmill_id', 'text' is")
    assert record.getMessage().endswith(": 'names' renames it")


class Review(BaseModel):
    good: bool


@pytest.mark.parametrize("schema", [Review, Review.model_json_schema()], ids=["class", "dict"])
def test_schema_is_the_response_format(
    embedded: Mill, client: Client, schema: type[BaseModel] | dict[str, Any]
) -> None:
    batch = client.submit(["a"], model=embedded.model, schema=schema, params={"n": 2})
    assert batch.params["n"] == 2
    written = batch.params["response_format"]
    assert written["type"] == "json_schema"
    assert written["json_schema"]["schema"] == Review.model_json_schema()


def test_bad_schema_is_refused_with_the_other_faults(embedded: Mill, client: Client) -> None:
    with pytest.raises(UsageError) as caught:
        client.submit(["a"], model=embedded.model, schema=dict, name="n" * 201)
    assert caught.value.faults == (
        "schema is dict: give a JSON Schema as a dict, or a pydantic model class",
        "the name has 201 characters: 1 to 200 are allowed",
    )
    twice = {"response_format": {"type": "json_object"}}
    with pytest.raises(ParameterError, match="keep one of them"):
        client.submit(["a"], model=embedded.model, schema=Review, params=twice)


def test_given_no_worker_when_waited_for_then_the_timeout_says_where_it_stands(
    embedded: Mill, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    batch = client.submit(["a", "b"], model=embedded.model)
    with pytest.raises(TimeoutError, match=f"{batch.id} is queued") as timeout:
        client.wait(batch.id, timeout=0.05, poll=0.01)
    hint = f"no worker serves it yet; start one: promptmill worker --model {embedded.model} "
    hint += "--engine echo"
    assert str(timeout.value).endswith(f" after 0.05 s: {hint}")
    (record,) = caplog.records
    assert record.getMessage() == f"batch {batch.id}: {hint}"
    cancelled = client.cancel(batch.id)
    assert (cancelled.state, cancelled.cancelled) == ("cancelled", 2)
    assert client.cancel(batch.id) == cancelled
    assert {one.state for one in client.results(batch.id)} == {JobState.CANCELLED}
    client.delete(batch.id)
    with pytest.raises(NotFoundError):
        client.batch(batch.id)


def test_given_a_mapping_when_submitted_then_it_is_one_request(
    embedded: Mill, client: Client
) -> None:
    batch = client.submit({"prompt": "a", "custom_id": "x"}, model=embedded.model)
    job = client.status(f"{batch.id}-1")
    assert isinstance(job, Job)
    assert (batch.total, job.custom_id) == (1, "x")


def test_given_an_order_that_there_is_none_when_results_are_asked_for_then_it_is_refused(
    embedded: Mill, client: Client
) -> None:
    batch = client.submit(["a"], model=embedded.model)
    with pytest.raises(UsageError, match="order is 'inptu': it is one of finished, input"):
        client.results(batch.id, order="inptu")  # type: ignore[arg-type]
