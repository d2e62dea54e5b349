"""From a stored job to a request, and from an outcome to what is stored."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest

from db.modes import EmbedParams, Mode, ScoreParams
from db.queries.outcomes import JobOutcome
from db.records import Claim, ClaimedJob
from db.sampling import seed_of
from db.states import JobState
from db.vectors import unpack
from tests.support.parrots import TIME
from worker.engine.protocol import (
    Cancelled,
    Completed,
    Embedded,
    EmbedRequest,
    Failed,
    Measured,
    Request,
    Sample,
    Scored,
    ScoreRequest,
    TokenLogprob,
    TopLogprob,
)
from worker.requests import backoff, storable, to_outcome, to_request
from worker.run import Run


def a_run(params: dict[str, Any] | None = None, mode: Mode = Mode.GENERATE) -> Run:
    claim = Claim(
        7, 3, "bk3v9xq2h7mz", "token", params or {}, (), now=110.0, mode=mode, created_at=90.0
    )
    return Run(claim, received_at=100.0)


def a_job(request: dict[str, Any] | str, attempts: int = 0) -> ClaimedJob:
    return ClaimedJob(5, request if isinstance(request, str) else json.dumps(request), attempts)


def asked(request: dict[str, Any], params: dict[str, Any] | None = None) -> Request:
    made = to_request(a_run(params), a_job(request))
    assert isinstance(made, Request)
    return made


def stored(
    outcome: Completed | Scored | Embedded | Measured | Failed,
    attempts: int = 0,
    max_attempts: int = 3,
) -> JobOutcome:
    made = to_outcome(a_run(), a_job({}, attempts), outcome, max_attempts=max_attempts)
    assert made is not None
    assert (made.chunk, made.batch, made.token, made.line) == (7, 3, "token", 5)
    return made


def test_clock_of_a_request_is_the_batchs_creation() -> None:
    chat = {"messages": [{"role": "user", "content": "Which day is it?"}]}
    assert asked(chat).clock == 90.0
    scored = to_request(a_run(mode=Mode.SCORE), a_job({**chat, "completion": "Monday"}))
    assert isinstance(scored, ScoreRequest)
    assert scored.clock == 90.0


def test_prompt_may_be_token_ids_or_several() -> None:
    assert asked({"prompt": [5, 6]}).prompt_ids == [5, 6]
    assert asked({"prompt": [5, 6]}).prompt is None
    assert asked({"prompts": ["a", [5]]}).prompts == ["a", [5]]
    embed = to_request(a_run(mode=Mode.EMBED), a_job({"prompts": ["a", "b"]}))
    assert embed == EmbedRequest("bk3v9xq2h7mz-5:token", EmbedParams(), prompts=["a", "b"])


def test_measurements_of_several_prompts_are_rows_in_order() -> None:
    vectors = [array("f", [float(at)]) for at in range(2)]
    embedded = tuple(Embedded(vector, "float32", 3, 101.0) for vector in vectors)
    outcome = stored(Measured(embedded))
    assert outcome.prompt_tokens == 6
    assert [unpack(row.embedding or b"").tolist() for row in outcome.samples] == [[0.0], [1.0]]


def test_given_a_prompt_when_asked_then_line_parameters_go_before_the_batchs() -> None:
    request = asked(
        {"prompt": "Hello", "params": {"temperature": 0}}, {"temperature": 0.7, "max_tokens": 9}
    )
    assert (request.id, request.prompt, request.messages) == ("bk3v9xq2h7mz-5:token", "Hello", None)
    assert (request.params.temperature, request.params.max_tokens) == (0, 9)


def test_given_a_chat_when_asked_then_it_goes_on_as_messages() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    request = asked({"messages": messages})
    assert (request.prompt, request.messages) == (None, messages)


def test_given_no_seed_when_asked_then_it_is_the_jobs_own_and_the_same_every_time() -> None:
    seeds = {asked({"prompt": "x"}).seed for _ in range(3)}
    assert seeds == {seed_of("bk3v9xq2h7mz", 5)}
    assert asked({"prompt": "x", "params": {"seed": 7}}).seed == 7
    assert asked({"prompt": "x"}, {"seed": 0}).seed == 0


def test_given_a_job_when_its_seed_is_derived_then_it_never_changes_between_releases() -> None:
    """A retry, another worker and another release must repeat the samples."""
    assert seed_of("bk3v9xq2h7mz", 1) == 3701961034158225644
    assert len({seed_of("bk3v9xq2h7mz", line) for line in range(1_000)}) == 1_000
    assert seed_of("b1", 12) != seed_of("b11", 2)
    assert all(0 <= seed_of("b", line) < 2**63 for line in range(1_000))


@pytest.mark.parametrize(
    "request_text", ["{", '{"prompt": "x", "params": {"temperature": -1}}', ""]
)
def test_given_a_stored_line_that_can_not_be_asked_when_asked_then_it_fails_for_good(
    request_text: str,
) -> None:
    made = to_request(a_run(), a_job(request_text))
    assert isinstance(made, Failed)
    assert (made.code, made.retriable) == ("invalid_request", False)


def test_given_a_completion_when_stored_then_all_of_it_is() -> None:
    top = (TopLogprob(" a", 3, -0.5), TopLogprob("\ufffd", 4, -1.5, b"\xe2\x82"))
    logprobs = (TokenLogprob("a\x00", 3, -0.5, top),)
    samples = (
        Sample(0, "text", "stop", 4, logprobs),
        Sample(1, "more\x00", "length", 6),
    )
    made = stored(Completed(samples, prompt_tokens=9, started_at=50.0))
    assert (made.state, made.prompt_tokens, made.completion_tokens) == (JobState.SUCCEEDED, 9, 10)
    # In the database's time, which is 10 s ahead.
    assert made.started_at == 60.0
    assert (made.error_code, made.error_message) == (None, None)
    first, second = made.samples
    assert (first.text, first.finish_reason, first.completion_tokens) == ("text", "stop", 4)
    assert (second.text, second.logprobs) == ("more\ufffd", None)
    assert json.loads(first.logprobs or "") == [
        {
            "token": "a\ufffd",
            "token_id": 3,
            "logprob": -0.5,
            "top": [
                {"token": " a", "token_id": 3, "logprob": -0.5},
                {"token": "\ufffd", "token_id": 4, "logprob": -1.5, "bytes": [0xE2, 0x82]},
            ],
        }
    ]


def test_given_a_cancelled_request_when_stored_then_its_job_stays_open() -> None:
    assert to_outcome(a_run(), a_job({}), Cancelled(), max_attempts=3) is None


@pytest.mark.parametrize(
    ("retriable", "attempts", "max_attempts", "state"),
    [
        (False, 0, 3, JobState.FAILED),
        (True, 0, 3, JobState.QUEUED),
        (True, 1, 3, JobState.QUEUED),
        (True, 2, 3, JobState.FAILED),
        (True, 7, 3, JobState.FAILED),
        (True, 0, 1, JobState.FAILED),
    ],
)
def test_given_a_failure_when_stored_then_it_is_tried_again_only_while_attempts_are_left(
    retriable: bool, attempts: int, max_attempts: int, state: JobState
) -> None:
    made = stored(Failed("out_of_memory", "no\x00room", retriable), attempts, max_attempts)
    assert made.state is state
    assert (made.error_code, made.error_message) == ("out_of_memory", "no\ufffdroom")
    assert made.samples == ()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("日本語 🎉\n", "日本語 🎉\n"),
        ("a\x00b", "a\ufffdb"),
        ("a\ud83db", "a?b"),
        ("\udc00", "?"),
    ],
)
def test_given_a_text_when_made_storable_then_only_what_no_database_takes_is_replaced(
    text: str, kept: str
) -> None:
    assert storable(text) == kept


def test_given_failed_attempts_when_backing_off_then_the_pause_doubles_up_to_a_minute() -> None:
    assert [backoff(n) for n in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff(10_000) == 60


def test_given_a_mode_when_asked_then_the_request_is_the_modes_with_its_own_parameters() -> None:
    scoring, embedding = a_run({"logprobs": 2}, Mode.SCORE), a_run({"pooling": "last"}, Mode.EMBED)
    one = to_request(scoring, a_job({"prompt": "a", "completion": "b"}))
    assert one == ScoreRequest(
        "bk3v9xq2h7mz-5:token", ScoreParams(logprobs=2), prompt="a", completion="b", clock=90.0
    )
    other = to_request(embedding, a_job({"prompt": "a", "params": {"normalize": True}}))
    assert other == EmbedRequest(
        "bk3v9xq2h7mz-5:token", EmbedParams(pooling="last", normalize=True), "a"
    )
    foreign = to_request(embedding, a_job({"prompt": "a", "params": {"temperature": 0}}))
    assert isinstance(foreign, Failed)
    assert foreign.code == "invalid_request"


def test_given_a_score_when_stored_then_it_has_a_number_and_no_text() -> None:
    tokens = (TokenLogprob("x", 3, -1.5),)
    made = stored(Scored(-1.5, 1, 4, 50.0, tokens))
    assert (made.prompt_tokens, made.completion_tokens, made.started_at) == (4, 1, 60.0)
    (row,) = made.samples
    assert (row.text, row.finish_reason, row.logprob, row.embedding) == (None, None, -1.5, None)
    assert json.loads(row.logprobs or "") == [
        {"token": "x", "token_id": 3, "logprob": -1.5, "top": []}
    ]


def test_given_an_embedding_when_stored_then_it_is_packed_as_it_asked() -> None:
    vector = array("f", [0.5, -2.0])
    made = stored(Embedded(vector, "float16", 4, 50.0))
    (row,) = made.samples
    assert (row.text, row.completion_tokens, row.logprob) == (None, 0, None)
    assert row.embedding is not None
    assert len(row.embedding) == 5
    assert unpack(row.embedding) == vector


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_idle_tool_choice_of_the_batch_is_not_asked_without_tools(choice: str | None) -> None:
    defaults = {"tool_choice": choice, "parallel_tool_calls": True, "n": 2}
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    for line in ({"prompt": "hi"}, chat):
        params = asked(line, defaults).params
        assert (params.tool_choice, params.parallel_tool_calls, params.n) == (None, None, 2)
    params = asked({**chat, "tools": [TIME]}, defaults).params
    assert (params.tool_choice, params.parallel_tool_calls) == (choice, True)
