"""`--json` of every command: parseable, with the documented keys and nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from db.queries import outcomes
from db.settings import Settings, settings
from producer import Client
from producer.cli import COMMANDS, main
from tests.support.stored import a_worker, claims, failed, succeeded

BATCH_KEYS = {
    "id", "object", "name", "model", "queue", "mode", "state", "priority", "params", "metadata",
    "counts", "tokens", "samples", "created_at", "started_at", "finished_at", "expires_at",
}  # fmt: skip
JOB_KEYS = {
    "id", "object", "batch", "line", "mode", "custom_id", "state", "attempts", "worker",
    "started_at", "finished_at", "tokens", "columns", "request", "samples", "seed", "params",
    "provenance", "error", "history",
}  # fmt: skip
WORKER_KEYS = {
    "name", "host", "pid", "queue", "engine", "model", "revision", "device", "dtype",
    "parameters", "kv_tokens", "capacity", "adapters", "in_flight", "jobs", "tokens",
    "tokens_per_second", "started_at", "heartbeat_at", "silent_for", "stops_at",
}  # fmt: skip
RESULT_KEYS = {
    "id", "custom_id", "state", "sample", "text", "finish_reason", "prompt_tokens",
    "completion_tokens", "error",
}  # fmt: skip
PROVENANCE_KEYS = {
    "line", "model", "revision", "weights", "tokenizer", "adapter", "engine", "engine_version",
    "backend", "dtype", "device", "hardware", "worker", "seed", "params", "attempts", "started_at",
    "finished_at", "seconds",
}  # fmt: skip

#: Commands that print no JSON: they run for ever, or print a script.
_WITHOUT = {"worker", "completion"}

#: JSON values, a line each, of `promptmill ARGUMENTS --json`, which must exit with 0.
Lines = Callable[..., list[Any]]


@pytest.fixture
def lines() -> Lines:
    def run(*arguments: str, code: int = 0) -> list[Any]:
        settings.cache_clear()
        done = CliRunner().invoke(main, [*arguments, "--json"])
        assert done.exit_code == code, (done.stderr, done.exception)
        return [orjson.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
def batch(tmp_path: Path, lines: Lines) -> str:
    """A finished batch: line 1 failed, line 2 succeeded."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a", "custom_id": "x", "temperature": 0}\n{"prompt": "b"}\n')
    (told,) = lines(
        "submit", str(file), "--model", "m", "--name", "n", "--metadata", "who=me", "-p", "n=2"
    )
    assert told.pop("created") is True
    assert set(told) == BATCH_KEYS
    assert (told["object"], told["state"], told["name"]) == ("batch", "queued", "n")
    assert (told["params"], told["metadata"]) == ({"n": 2}, {"who": "me"})
    with Client(Settings()) as client:
        worker = a_worker(client.database, queue=told["queue"], model="m")
        for claim in claims(client.database, worker, queue=told["queue"]):
            ended = [
                failed(claim, job.line) if job.line == 1 else succeeded(claim, job.line, "B", "b")
                for job in claim.jobs
            ]
            with client.database.write() as connection:
                outcomes.record(connection, ended, worker=worker)
                outcomes.settle(connection, [claim.batch])
    return str(told["id"])


def test_given_a_batch_when_shown_then_its_keys_are_the_documented_ones(
    batch: str, lines: Lines
) -> None:
    (told,) = lines("status", batch)
    assert set(told) == BATCH_KEYS | {"failures", "remarks", "pace"}
    assert told["samples"] == {
        "total": 2, "truncated": 0, "shortest_cut": None, "longest_cut": None
    }  # fmt: skip
    example = {"id": f"{batch}-1", "message": "it broke"}
    assert told["failures"] == [{"code": "broken", "count": 1, "example": example}]
    assert told["remarks"] == [f"1 failed with broken, such as {batch}-1: it broke"]
    assert told["counts"] == {
        "total": 2, "done": 2, "succeeded": 1, "failed": 1, "cancelled": 0, "expired": 0,
    }  # fmt: skip
    assert told["tokens"] == {"prompt": 3, "completion": 4}
    assert told["created_at"].endswith("Z")
    del told["pace"]
    assert lines("watch", batch, code=1) == [told]
    assert lines("list") == [{key: told[key] for key in BATCH_KEYS}]


def test_given_jobs_when_shown_then_they_tell_their_samples_or_their_error(
    batch: str, lines: Lines
) -> None:
    (broken,) = lines("status", f"{batch}-1")
    assert set(broken) == JOB_KEYS
    assert broken["error"] == {"code": "broken", "message": "it broke"}
    assert broken["custom_id"] == "x"
    assert broken["request"] == {"prompt": "a", "params": {"temperature": 0.0}}
    assert broken["samples"] == []
    (fine,) = lines("status", f"{batch}-2")
    assert set(fine) == JOB_KEYS
    assert fine["error"] is None
    assert [(one["sample"], one["text"]) for one in fine["samples"]] == [(0, "B"), (1, "b")]


def test_given_results_when_written_then_a_file_is_told_and_records_are_json(
    batch: str, lines: Lines, tmp_path: Path
) -> None:
    records = lines("results", batch)
    assert all(set(record) == RESULT_KEYS for record in records)
    ids = [(f"{batch}-1", 0), (f"{batch}-2", 0), (f"{batch}-2", 1)]
    assert [(one["id"], one["sample"]) for one in records] == ids
    records = lines("results", batch, "--provenance")
    assert all(set(record) == RESULT_KEYS | PROVENANCE_KEYS for record in records)
    output = str(tmp_path / "out.csv")
    assert lines("results", batch, "-o", output) == [
        {"batch": batch, "output": output, "records": 3}
    ]


def test_given_a_batch_when_steered_then_it_is_told_as_it_is_now(batch: str, lines: Lines) -> None:
    assert lines("retry", batch) == [{"batch": batch, "retried": 1}]
    for command, state in (("pause", "paused"), ("resume", "in_progress"), ("cancel", "cancelled")):
        (told,) = lines(command, batch)
        assert set(told) == BATCH_KEYS
        assert told["state"] == state
    assert lines("delete", batch, "--yes") == [{"batch": batch, "deleted": True}]
    assert lines("list") == []


def test_given_a_worker_when_listed_then_its_keys_are_the_documented_ones(
    batch: str, lines: Lines
) -> None:
    (told,) = lines("workers")
    assert set(told) == WORKER_KEYS
    assert (told["model"], told["device"], told["tokens_per_second"]) == ("m", "cpu", 0.0)


def test_given_the_installation_when_examined_then_every_check_is_a_line(lines: Lines) -> None:
    settings.cache_clear()
    done = CliRunner().invoke(main, ["doctor", "--json"])
    checks = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert checks
    assert {"name", "state", "finding", "advice"} <= set(checks[0])
    assert done.exit_code == any(check["state"] == "error" for check in checks)
    (upgraded,) = lines("db", "upgrade")
    assert set(upgraded) == {"before", "after"}


def test_when_every_command_is_looked_at_then_each_has_json_or_a_reason_not_to() -> None:
    without = set()
    for name in COMMANDS:
        done = CliRunner().invoke(main, [*_leaf(name), "--help"])
        if "--json" not in done.stdout:
            without.add(name)
    assert without == _WITHOUT


def _leaf(name: str) -> list[str]:
    return ["db", "upgrade"] if name == "db" else [name]
