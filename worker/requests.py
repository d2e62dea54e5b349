"""From a stored job to an engine's request, and from its outcome to what is stored. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from db.errors import ParameterError
from db.exact_json import BrokenJson, loads
from db.modes import EmbedParams, ScoreParams
from db.queries.outcomes import JobOutcome, SampleRow, Try
from db.records import ClaimedJob
from db.sampling import DEFAULT_MAX_TOKENS, SamplingParams, seed_of
from db.states import JobState
from db.vectors import pack
from worker.engine.protocol import (
    Cancelled,
    Completed,
    Embedded,
    EmbedRequest,
    Failed,
    Measured,
    Measurement,
    Outcome,
    Request,
    Sample,
    Scored,
    ScoreRequest,
    TokenLogprob,
    TopLogprob,
)
from worker.run import Run
from worker.second_tries import Kept, Tried


def to_request(run: Run, job: ClaimedJob) -> Request | Measurement | Failed:
    """What the engine is asked. Failed where the stored line can't be asked at all."""
    try:
        stored: dict[str, Any] = loads(job.request)
        params = run.params(stored.get("params"))
    except (BrokenJson, ParameterError) as error:
        return Failed("invalid_request", str(error))
    if not isinstance(params, SamplingParams):
        return _measurement(run, job.line, params, stored)
    seed = params.seed if params.seed is not None else seed_of(run.claim.batch_uid, job.line)
    return Request(
        id=run.request_id(job.line),
        params=params if stored.get("tools") else _without_tools(params),
        seed=seed,
        messages=stored.get("messages"),
        tools=stored.get("tools"),
        clock=run.claim.created_at,
        **prompt_of(stored),
    )


def _without_tools(params: SamplingParams) -> SamplingParams:
    """Without what says how tools are called, which a batch may say for the lines that have some.

    A call that is required stays: submitting refuses it, and so does the engine.
    """
    idle = params.tool_choice in ("none", "auto")
    if not idle and params.parallel_tool_calls is None:
        return params
    left = None if idle else params.tool_choice
    return params.model_copy(update={"tool_choice": left, "parallel_tool_calls": None})


def _measurement(
    run: Run, line: int, params: ScoreParams | EmbedParams, stored: dict[str, Any]
) -> Measurement:
    if isinstance(params, EmbedParams):
        return EmbedRequest(run.request_id(line), params, **prompt_of(stored))
    return ScoreRequest(
        run.request_id(line),
        params,
        messages=stored.get("messages"),
        completion=stored.get("completion"),
        clock=run.claim.created_at,
        **prompt_of(stored),
    )


def prompt_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored prompt (text or token ids), or several, as fields of an engine's request."""
    prompt, prompts = stored.get("prompt"), stored.get("prompts")
    if prompts is not None:
        return {"prompts": prompts}
    return (
        {"prompt": prompt} if prompt is None or isinstance(prompt, str) else {"prompt_ids": prompt}
    )


def to_outcome(
    run: Run,
    job: ClaimedJob,
    outcome: Outcome,
    *,
    max_attempts: int,
    tries: Sequence[Kept] = (),
) -> JobOutcome | None:
    """What to store; None for a cancelled request: its job is still open.

    `tries`: what came before the outcome, for the job's history. A failure that may pass another
    time queues the job again, until its attempts are spent.
    """
    if isinstance(outcome, Cancelled):
        return None
    if not isinstance(outcome, Failed):
        return JobOutcome(
            chunk=run.claim.chunk,
            token=run.claim.token,
            batch=run.claim.batch,
            line=job.line,
            state=JobState.SUCCEEDED,
            started_at=outcome.started_at + run.clock_offset,
            prompt_tokens=outcome.prompt_tokens,
            samples=_rows(outcome),
            tries=_tries(run, tries),
        )
    again = outcome.retriable and job.attempts + 1 < max_attempts
    told = _tries(run, tries)
    return JobOutcome(
        chunk=run.claim.chunk,
        token=run.claim.token,
        batch=run.claim.batch,
        line=job.line,
        state=JobState.QUEUED if again else JobState.FAILED,
        started_at=min(filter(None, (one.started_at for one in told)), default=None),
        error_code=outcome.code,
        error_message=storable(outcome.message),
        tries=told,
    )


def _tries(run: Run, kept: Sequence[Kept]) -> tuple[Try, ...]:
    return tuple(_try(run, *one) for one in kept)


def _try(run: Run, tried: Tried, code: str, message: str) -> Try:
    outcome, request = tried.outcome, tried.request
    samples = list(map(_kept_sample, tried.samples))
    drawn: dict[str, int] = {"seed": request.seed}
    if request.params.max_length is None:
        drawn["max_tokens"] = request.params.max_tokens or DEFAULT_MAX_TOKENS
    answer = outcome if isinstance(outcome, Completed) else None
    return Try(
        started_at=answer.started_at + run.clock_offset if answer else None,
        ended_at=tried.ended_at + run.clock_offset,
        error_code=code,
        error_message=storable(message),
        params=orjson.dumps(drawn).decode(),
        samples=orjson.dumps(samples).decode() if answer else None,
    )


def _kept_sample(sample: Sample) -> dict[str, Any]:
    row = sample_row(sample)
    kept = {
        "text": row.text,
        "finish_reason": row.finish_reason,
        "completion_tokens": row.completion_tokens,
    }
    if row.reasoning is not None:
        kept["reasoning"] = row.reasoning
    if row.tool_calls is not None:
        kept["tool_calls"] = orjson.loads(row.tool_calls)
    return kept


def _rows(outcome: Completed | Scored | Embedded | Measured) -> tuple[SampleRow, ...]:
    if isinstance(outcome, Completed):
        return tuple(map(sample_row, outcome.samples))
    several = outcome.measurements if isinstance(outcome, Measured) else (outcome,)
    return tuple(map(_measured_row, several))


def _measured_row(outcome: Scored | Embedded) -> SampleRow:
    if isinstance(outcome, Scored):
        logprobs = _logprobs(outcome.logprobs)
        return SampleRow(None, None, outcome.tokens, logprobs, logprob=outcome.logprob)
    return SampleRow(None, None, 0, embedding=pack(outcome.vector, outcome.precision))


def sample_row(sample: Sample) -> SampleRow:
    """A sample as it is stored."""
    return SampleRow(
        text=storable(sample.text),
        finish_reason=sample.finish_reason,
        completion_tokens=sample.completion_tokens,
        logprobs=_logprobs(sample.logprobs),
        reasoning=None if sample.reasoning is None else storable(sample.reasoning),
        tool_calls=_calls(sample.tool_calls),
    )


def storable(text: str) -> str:
    """The text without what no database takes: NUL, and halves of surrogate pairs."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def backoff(failed_attempts: int) -> float:
    """Seconds before the next attempt: none after no failure, then 1, 2, 4, … up to a minute."""
    return 0.0 if failed_attempts == 0 else float(min(60, 2 ** (failed_attempts - 1)))


def _calls(calls: Sequence[Mapping[str, Any]] | None) -> str | None:
    """As JSON that any database stores. A half of a surrogate pair is no text for orjson."""
    if not calls:
        return None
    return storable(json.dumps(calls, ensure_ascii=False).replace("\\u0000", "\\ufffd"))


def _logprobs(tokens: tuple[TokenLogprob, ...] | None) -> str | None:
    if tokens is None:
        return None
    rows = [{**_token(token), "top": list(map(_token, token.top))} for token in tokens]
    return orjson.dumps(rows).decode()


def _token(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    row = {
        "token": storable(token.token),
        "token_id": token.token_id,
        "logprob": token.logprob,
    }
    return row if token.bytes is None else {**row, "bytes": list(token.bytes)}
