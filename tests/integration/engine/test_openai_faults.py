"""The engine `openai` against an endpoint that breaks in every way: one outcome a request."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from db.errors import ModelLoadError
from tests.support.collector import Collector, completed, outcomes, request
from tests.support.endpoint import EchoEndpoint, Fault, Faults, Status
from tests.support.processes import eventually
from tests.support.servers import free_port
from worker.engine.protocol import Completed, Engine, EngineConfig, Failed, Request
from worker.engine.registry import create

BUSY = Status(429, {"retry-after-ms": "50"})


def _engine(url: str, concurrency: int = 64, **options: str) -> Engine:
    given = {"base_url": url, "timeout": "5", **options}
    return create("openai", EngineConfig("echo", max_concurrency=concurrency, options=given))


@contextmanager
def _running(endpoint: EchoEndpoint, concurrency: int = 64, **options: str) -> Iterator[Engine]:
    engine = _engine(endpoint.url, concurrency, **options)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


def _prompts(count: int) -> list[Request]:
    return [request(str(number), f"prompt {number}") for number in range(count)]


def _first_try_only(fault: Fault | Status) -> Faults:
    """Every prompt meets it once."""
    seen: set[str] = set()
    lock = threading.Lock()

    def faults(number: int, body: Mapping[str, Any]) -> Fault | Status | None:
        with lock:
            again = body["prompt"] in seen
            seen.add(body["prompt"])
        return None if again else fault

    return faults


def _always(fault: Fault | Status) -> Faults:
    return lambda number, body: fault


@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        Status(500),
        Status(503, {"retry-after-ms": "20"}),
        Status(409),
        Status(500, {}, "<html>not JSON</html>"),
        Fault.RESET,
        Fault.GARBAGE,
        Fault.NO_CHOICES,
        Fault.SLOW,
    ],
    ids=str,
)
def test_given_a_fault_of_every_first_try_when_tried_again_then_every_request_completes(
    fault: Fault | Status,
) -> None:
    with EchoEndpoint(faults=_first_try_only(fault)) as endpoint, _running(endpoint) as engine:
        answers = completed(engine, _prompts(20))
        assert {name: one.samples[0].text for name, one in answers.items()} == {
            str(number): f"prompt {number}" for number in range(20)
        }
        assert engine.stats().in_flight == 0


def test_given_an_endpoint_that_hangs_at_first_when_timed_out_then_it_is_asked_again() -> None:
    with (
        EchoEndpoint(faults=_first_try_only(Fault.HANG)) as endpoint,
        _running(endpoint, timeout="2") as engine,
    ):
        assert len(completed(engine, _prompts(5))) == 5
        assert len(endpoint.posts) == 10


@pytest.mark.parametrize(
    "fault", [BUSY, Status(502), Fault.RESET, Fault.GARBAGE, Fault.HANG], ids=str
)
def test_given_a_fault_that_never_ends_when_the_retries_are_spent_then_it_may_come_back(
    fault: Fault | Status,
) -> None:
    with (
        EchoEndpoint(faults=_always(fault)) as endpoint,
        # Only one that hangs needs a time-out; a try on a busy machine must reach the endpoint.
        _running(endpoint, timeout="2" if fault is Fault.HANG else "60", max_retries="1") as engine,
    ):
        answers = outcomes(engine, _prompts(3))
        for one in answers.values():
            assert isinstance(one, Failed)
            assert (one.code, one.retriable) == ("endpoint_unavailable", True)
            assert "\n" not in one.message
        assert len(endpoint.posts) == 6


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "endpoint_refused"),
        (401, "endpoint_denied"),
        (403, "endpoint_denied"),
        (404, "endpoint_not_found"),
        (422, "endpoint_refused"),
    ],
)
def test_given_what_no_repeat_mends_when_met_then_it_is_asked_once(status: int, code: str) -> None:
    with EchoEndpoint(faults=_always(Status(status))) as endpoint, _running(endpoint) as engine:
        (answer,) = outcomes(engine, _prompts(1)).values()
        assert isinstance(answer, Failed)
        assert (answer.code, answer.retriable) == (code, False)
        assert len(endpoint.posts) == 1


def test_given_one_bad_prompt_among_good_ones_when_refused_then_it_fails_alone() -> None:
    def faults(number: int, body: Mapping[str, Any]) -> Status | None:
        return Status(500) if body["prompt"] == "prompt 3" else None

    with (
        EchoEndpoint(faults=faults) as endpoint,
        _running(endpoint, max_retries="2") as engine,
    ):
        answers = outcomes(engine, _prompts(30))
        failed = [name for name, one in answers.items() if isinstance(one, Failed)]
        assert failed == ["3"]


def test_given_all_sorts_of_faults_at_once_when_it_is_over_then_each_has_one_outcome() -> None:
    kinds = [*Fault, BUSY, Status(500), Status(503), Status(400), None, None]
    # A hang costs its whole timeout: it is met seldom, and has a short one.
    with (
        EchoEndpoint(faults=lambda number, body: kinds[number * 7 % len(kinds)]) as endpoint,
        _running(endpoint, timeout="0.4", max_retries="3") as engine,
    ):
        collector = Collector()
        for one in _prompts(60):
            engine.submit(one, collector.on_done)
        for number in range(0, 60, 6):
            engine.cancel(str(number))
        answers = collector.wait(60)
        assert len(answers) == 60
        assert len(collector.answers) == 60
        assert sum(isinstance(one, Completed) for one in answers.values()) > 10
        assert engine.stats().in_flight == 0
        endpoint.faults = _always_well
        assert completed(engine, [request("after", "all is well")])
        assert len(collector.answers) == 60


def _always_well(number: int, body: Mapping[str, Any]) -> None:
    return None


def test_given_a_storm_when_it_comes_and_goes_then_concurrency_falls_and_recovers() -> None:
    storm = threading.Event()
    with EchoEndpoint(
        faults=lambda number, body: BUSY if storm.is_set() else None, seconds_per_token=0.002
    ) as endpoint, _running(endpoint, concurrency=16, max_retries="1000") as engine:  # fmt: skip
        collector = Collector()
        submitted = 0

        def submit_until(reached: Callable[[], bool]) -> None:
            nonlocal submitted
            deadline = time.monotonic() + 60
            while not reached():
                assert time.monotonic() < deadline
                for _ in range(64):
                    prompt = request(str(submitted), "one two three four")
                    engine.submit(prompt, collector.on_done)
                    submitted += 1
                collector.wait(submitted - 64)

        submit_until(lambda: engine.stats().capacity == 16)
        assert endpoint.most_at_once <= 16
        storm.set()
        engine.submit(request("probe", "one two"), collector.on_done)
        engine.submit(request("probe 2", "one two"), collector.on_done)
        submitted += 2
        eventually(lambda: engine.stats().capacity == 1, what="the window falls")
        assert engine.stats().stalled_for < 5
        storm.clear()
        submit_until(lambda: engine.stats().capacity == 16)
        answers = collector.wait(submitted)
        assert len(collector.answers) == submitted
        assert all(isinstance(one, Completed) for one in answers.values())


def test_given_a_retry_after_when_one_request_meets_it_then_nobody_sends_before() -> None:
    wait = 0.6
    busy = Status(429, {"retry-after": str(wait)})
    with (
        EchoEndpoint(faults=lambda number, body: busy if number == 0 else None) as endpoint,
        _running(endpoint, concurrency=1) as engine,
    ):
        completed(engine, _prompts(4))
        first, *rest = endpoint.times
        assert len(rest) == 4
        assert min(rest) - first >= wait


def test_given_requests_a_minute_when_spent_then_the_rest_waits_and_nothing_stalls() -> None:
    with EchoEndpoint() as endpoint, _running(endpoint, rpm="3") as engine:
        collector = Collector()
        for one in _prompts(5):
            engine.submit(one, collector.on_done)
        collector.wait(3)
        eventually(lambda: engine.stats().in_flight == 2, what="three are answered")
        eventually(lambda: engine.stats().stalled_for == 0.0, what="it waits on purpose")
        assert len(endpoint.posts) == 3
        engine.close()
        assert len(collector.wait(5)) == 5


def test_given_an_endpoint_that_hangs_when_time_passes_then_the_stall_is_told() -> None:
    with EchoEndpoint(faults=_always(Fault.HANG)) as endpoint, _running(endpoint) as engine:
        collector = Collector()
        assert engine.stats().stalled_for == 0.0
        engine.submit(request("a", "one"), collector.on_done)
        eventually(lambda: engine.stats().stalled_for > 0.3, what="it stalls")
        engine.cancel("a")
        assert engine.stats().stalled_for == 0.0
        eventually(lambda: len(endpoint.posts) == 1, what="the endpoint was asked")


def test_given_an_endpoint_that_gives_fewer_samples_when_asked_then_the_rest_is_fetched() -> None:
    with EchoEndpoint(samples=2) as endpoint, _running(endpoint) as engine:
        one = request("a", "one two three four five six", n=5, seed=0, temperature=1.0)
        answer = completed(engine, [one])["a"]
        assert [sample.index for sample in answer.samples] == [0, 1, 2, 3, 4]
        assert len({sample.text for sample in answer.samples}) == 5
        asked = [(body.get("n", 1), body["seed"]) for body in endpoint.bodies]
        assert asked == [(5, 0), (3, 2), (1, 4)]


def test_given_a_request_that_no_call_can_be_made_of_when_submitted_then_it_fails_alone() -> None:
    broken = replace(request("bad", [{"role": "user"}]), messages=[3])  # type: ignore[list-item]
    with EchoEndpoint() as endpoint, _running(endpoint) as engine:
        answers = outcomes(engine, [broken, *_prompts(2)])
        failed = {name for name, one in answers.items() if isinstance(one, Failed)}
        assert failed == {"bad"}


def test_given_a_callers_error_when_it_answers_then_the_others_are_still_answered() -> None:
    def broken(request_id: str, outcome: object) -> None:
        raise RuntimeError("the caller broke")

    with EchoEndpoint() as endpoint, _running(endpoint) as engine:
        engine.submit(request("a", "one"), broken)
        assert completed(engine, [request("b", "two")])


def test_given_nobody_there_when_started_then_it_says_so() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ModelLoadError, match=r"can't reach .*base_url"):
        _engine(url).start()


def test_given_a_hanging_server_when_started_then_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        with pytest.raises(ModelLoadError, match="did not answer within"):
            _engine(url, timeout="0.3").start()


@pytest.mark.parametrize("status", [401, 403])
def test_given_a_key_that_is_refused_when_started_then_it_says_so(status: int) -> None:
    with (
        EchoEndpoint(models=Status(status)) as endpoint,
        pytest.raises(ModelLoadError, match=r"does not accept .*OPENAI_API_KEY"),
    ):
        _engine(endpoint.url).start()


@pytest.mark.parametrize("status", [404, 405, 429, 500, 503])
def test_given_no_list_of_models_when_started_then_that_is_fine(status: int) -> None:
    with EchoEndpoint(models=Status(status)) as endpoint, _running(endpoint) as engine:
        assert completed(engine, _prompts(1))


def test_given_an_odd_list_of_models_when_started_then_that_is_fine() -> None:
    for said in ("<html>", "[]", json.dumps({"data": [{"no": "id"}]})):
        with EchoEndpoint(models=Status(200, {}, said)) as endpoint, _running(endpoint):
            pass
