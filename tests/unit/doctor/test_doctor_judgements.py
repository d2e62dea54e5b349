"""What the doctor makes of what it finds: pure judgements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from db.records import Worker
from db.schema import REVISIONS
from db.settings import Settings
from producer.doctor.broker import redis_checks
from producer.doctor.check import Check, State, carried_out
from producer.doctor.devices import Torch, device_check
from producer.doctor.examination import settings_checks
from producer.doctor.machine import disk_check, memory_check
from producer.doctor.queues import worker_check
from producer.doctor.storage import schema_check

GIB = 1 << 30
HEALTHY = {
    "redis_version": "7.2.4",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
}


@pytest.mark.parametrize(
    ("found", "embedded", "state", "advice"),
    [
        (REVISIONS[-1], False, "ok", None),
        (None, True, "ok", None),
        (None, False, "error", "run 'promptmill db upgrade'"),
        ("9999", False, "error", "install a newer promptmill"),
        ("9999", True, "error", "install a newer promptmill"),
    ],
)
def test_given_a_schema_revision_when_judged_then_the_advice_fits(
    found: str | None, embedded: bool, state: State, advice: str | None
) -> None:
    check = schema_check(found, embedded=embedded)
    assert (check.name, check.state, check.advice) == ("schema", state, advice)


@pytest.mark.parametrize(
    ("embedded", "state", "advice"),
    [(True, "ok", None), (False, "error", "run 'promptmill db upgrade'")],
)
def test_given_an_older_schema_when_judged_then_only_a_shared_one_needs_a_hand(
    embedded: bool, state: State, advice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.doctor.storage.REVISIONS", ("0001", "0002"))
    check = schema_check("0001", embedded=embedded)
    assert (check.state, check.advice) == (state, advice)
    assert check.finding.startswith("revision 0001, older than 0002")


def judged(**changes: Any) -> dict[str, Check]:
    return {check.name: check for check in redis_checks({**HEALTHY, **changes}, "there")}


def test_given_a_healthy_redis_when_judged_then_all_is_well() -> None:
    checks = judged()
    assert {name: check.state for name, check in checks.items()} == {
        "broker": "ok",
        "broker eviction": "ok",
        "broker persistence": "ok",
    }
    assert checks["broker"].finding == "Redis 7.2.4 there"


def test_given_valkey_when_judged_then_it_is_called_by_its_name() -> None:
    assert judged(valkey_version="9.1.0")["broker"].finding == "Valkey 9.1.0 there"


@pytest.mark.parametrize(
    ("changes", "name", "state", "advice"),
    [
        ({"redis_version": "6.0.16"}, "broker", "error", "use Redis 6.2 or later"),
        ({"redis_version": "5"}, "broker", "error", "use Redis 6.2 or later"),
        ({"role": "slave"}, "broker", "error", "set PROMPTMILL_BROKER_URL to its primary"),
        (
            {"maxmemory_policy": "allkeys-lru"},
            "broker eviction",
            "warning",
            "set 'maxmemory-policy noeviction' in redis.conf",
        ),
        ({"aof_enabled": 0}, "broker persistence", "warning", "set 'appendonly yes' in redis.conf"),
    ],
)
def test_given_an_unfit_redis_when_judged_then_it_says_what_to_do(
    changes: dict[str, Any], name: str, state: State, advice: str
) -> None:
    check = judged(**changes)[name]
    assert (check.state, check.advice) == (state, advice)


def test_given_a_server_that_says_little_when_judged_then_nothing_is_made_up() -> None:
    (check,) = redis_checks({}, "there")
    assert check == Check("broker", "ok", "Redis of unknown version there")


@pytest.mark.parametrize(
    ("free", "state"), [(5 * GIB, "ok"), (GIB - 1, "warning"), (99 << 20, "error")]
)
def test_given_free_disk_space_when_judged_then_little_is_a_warning(
    free: int, state: State
) -> None:
    check = disk_check(Path("/home"), free)
    assert check.state == state
    assert (check.advice is None) == (state == "ok")


@pytest.mark.parametrize(("free", "state"), [(2 * GIB, "ok"), (GIB - 1, "warning")])
def test_given_free_memory_when_judged_then_little_is_a_warning(free: int, state: State) -> None:
    assert memory_check(free, 8 * GIB).state == state


CPU = Torch("2.13.0+cpu", 8, gpu_build=False, gpus=())
GPU = Torch("2.13.0+cu130", 8, gpu_build=True, gpus=(("NVIDIA H100", 78 * GIB),))


@pytest.mark.parametrize(
    ("found", "wanted", "driver", "state", "finding"),
    [
        (CPU, "auto", False, "ok", "torch 2.13.0+cpu, CPU with 8 threads"),
        (CPU, "auto", True, "warning", "has an NVIDIA driver, torch and was built"),
        (GPU, "cuda", True, "ok", "cuda:0 NVIDIA H100 with 78.0 GiB free, CPU with 8 threads"),
        (GPU, "cuda:1", True, "error", "there is no cuda:1, which PROMPTMILL_DEVICE asks for"),
        (CPU, "cuda", False, "error", "there is no cuda, which PROMPTMILL_DEVICE asks for"),
    ],
)
def test_given_devices_when_judged_then_a_missing_one_is_told(
    found: Torch, wanted: str, driver: bool, state: State, finding: str
) -> None:
    check = device_check(found, wanted, driver=driver)
    assert check.state == state
    assert finding in check.finding


def a_live_worker(number: int, queue: str) -> Worker:
    return Worker(
        name=f"host:{number}:x", host="host", pid=number, queue=queue, engine="echo", model="m",
        revision=None, device="cpu", dtype="float32", parameters=0, kv_tokens=None, capacity=1,
        started_at=1.0, heartbeat_at=1.0, stopped_at=None, jobs=0, in_flight=0, prompt_tokens=0,
        completion_tokens=0, tokens_per_second=0.0, silent_for=0.0,
    )  # fmt: skip


def test_given_many_workers_when_judged_then_some_are_named_and_all_are_counted() -> None:
    check = worker_check([a_live_worker(number, "q") for number in range(7)], None)
    assert check.state == "ok"
    assert check.finding.startswith("7 alive: host:0:x on cpu, ")
    assert check.finding.endswith(" and 2 more")


def test_given_workers_of_other_models_when_judged_then_they_don_t_count() -> None:
    check = worker_check([a_live_worker(1, "promptmill.other.0")], "/models/my model")
    assert (check.state, check.finding) == ("warning", "none alive for /models/my model")
    assert check.advice == "start one: promptmill worker --model '/models/my model'"


@pytest.mark.parametrize(
    ("urls", "state", "advice"),
    [
        ({}, "ok", None),
        ({"database_url": "sqlite:////data/x.db"}, "ok", None),
        ({"broker_url": "redis://h/0"}, "warning", "set PROMPTMILL_DATABASE_URL"),
        ({"database_url": "postgresql+psycopg://h/d"}, "warning", "set PROMPTMILL_BROKER_URL"),
        (
            {"database_url": "postgresql+psycopg://h/d", "broker_url": "redis://h/0"},
            "ok",
            None,
        ),
    ],
)
def test_given_settings_when_judged_then_halves_that_reach_unequally_far_are_told(
    urls: dict[str, str], state: State, advice: str | None
) -> None:
    (check,) = settings_checks(Settings(**urls))  # type: ignore[arg-type]
    assert check.state == state
    assert (check.advice or "").startswith(advice or "")


def test_given_passwords_when_shown_then_they_are_not() -> None:
    settings = Settings(
        database_url="postgresql+psycopg://me:s3cret@h/d", broker_url="redis://:s3cret@h/0"
    )
    (check,) = settings_checks(settings)
    assert "s3cret" not in check.finding
    assert "me:***@h/d" in check.finding


def test_given_a_check_that_breaks_when_carried_out_then_it_is_a_finding() -> None:
    def broken() -> list[Check]:
        raise KeyError("some\nkey")

    (check,) = carried_out("memory", broken)
    assert (check.name, check.state) == ("memory", "error")
    assert check.finding.startswith("this check failed: KeyError: ")
