"""What queries return: plain values, so that no caller needs to know a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from db.input_columns import InputColumn
from db.modes import Mode
from db.sample_counts import SampleCounts
from db.states import BATCH_TERMINAL, BatchState, JobState
from db.vectors import Vector


@dataclass(frozen=True, slots=True)
class Batch:
    """One submission. Times are unix seconds, or None while they have not come."""

    key: int
    id: str
    name: str | None
    model: str
    queue: str
    state: BatchState
    priority: int
    params: Mapping[str, Any]
    metadata: Mapping[str, str]
    total: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    prompt_tokens: int
    completion_tokens: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    digest: str | None
    #: When its unfinished jobs expire; None: never.
    expires_at: float | None = None
    #: What is asked of the model.
    mode: Mode = Mode.GENERATE
    #: The columns of its input that come back with the results.
    input_columns: tuple[InputColumn, ...] = ()
    sample_counts: SampleCounts = field(default_factory=SampleCounts)

    @property
    def done(self) -> int:
        """Jobs in a terminal state."""
        return self.succeeded + self.failed + self.cancelled + self.expired

    @property
    def work_tokens(self) -> int:
        """What its speed is told in: generated tokens, or all where none is generated."""
        if self.mode is Mode.GENERATE:
            return self.completion_tokens
        return self.prompt_tokens + self.completion_tokens

    @property
    def run_count(self) -> int:
        """Jobs that were run to their end, well or not."""
        return self.succeeded + self.failed

    @property
    def finished(self) -> bool:
        return self.state in BATCH_TERMINAL


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a batch goes now, by the last heartbeats of its workers."""

    #: The database's clock (unix seconds).
    now: float
    #: Workers that are alive, serve its model and are not shutting down.
    serving: int
    #: Workers that hold chunks of it, those that are shutting down included.
    working: int
    #: Requests that are computed at once.
    running: int
    #: Tokens generated a second, those of unfinished requests included.
    tokens_per_second: float
    #: By when the last of them ends, where all that work on it are shutting down (unix seconds).
    stops_at: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a job failed, or that its answer was rejected. Times are unix seconds."""

    worker: str | None
    started_at: float | None
    ended_at: float
    error_code: str
    error_message: str
    #: Of a job that may ask again: `seed` and `max_tokens` of this try.
    params: Mapping[str, Any] | None = None
    #: The rejected answer: of each sample `text`, `finish_reason`, `completion_tokens`.
    samples: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a text, besides its request: the same for all that one worker makes.

    Compared field by field by `promptmill replay`. None: not known, or there is none.
    """

    model: str
    #: A hub model's commit, or a digest of the folder's config and of its weights' layout; of a
    #: GGUF file, of its header.
    revision: str | None
    #: SHA-256 over the weight files, as `sha256sum FILES | sha256sum` gives it.
    weights: str | None
    #: The same over the files of tokenizer and chat template; None for a GGUF file, which has them
    #: in it.
    tokenizer: str | None
    #: The same over the files of the LoRA adapter that was used.
    adapter: str | None
    engine: str
    engine_version: str
    backend: str | None
    #: What was computed in, and how the weights were packed if they were: `bfloat16, bnb-4bit`.
    dtype: str
    device: str
    hardware: str | None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model of a worker that made results of a batch, as far as its files identify it."""

    worker: str
    engine: str
    #: As in `Provenance`, all of them.
    revision: str | None
    weights: str | None
    tokenizer: str | None
    #: JSON: name -> digest of each LoRA adapter that was loaded beside the model; None: none.
    adapters: str | None
    #: Unix seconds.
    started_at: float


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt of a batch, as `status BATCH-42` shows it."""

    id: str
    batch: str
    line: int
    custom_id: str | None
    state: JobState
    attempts: int
    worker: str | None
    started_at: float | None
    finished_at: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error_code: str | None
    error_message: str | None
    request: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    #: What is asked of the model.
    mode: Mode = Mode.GENERATE
    #: When its batch was created (unix seconds): the time that its chat's template sees.
    created_at: float | None = None
    #: What it is drawn from, its own or made from its id; None for a line that can't be read, and
    #: where nothing is drawn.
    seed: int | None = None
    #: Every parameter in force, defaults included; None for a line that can't be read.
    params: Mapping[str, Any] | None = None
    #: What its last attempt was made with; None: no worker has had it to its end.
    provenance: Provenance | None = None
    #: Attempts that failed and answers that were rejected, oldest first.
    history: Sequence[Attempt] = ()
    #: The values of its input row, by column, in the form that `InputColumn.type` gives, but JSON
    #: parsed; without those that the row lacks.
    columns: Mapping[str, Any] = field(default_factory=dict)


class Result(NamedTuple):
    """One sample of a finished job, or the error of a job that has none.

    A tuple, as millions of them are made.
    """

    id: str
    batch: str
    line: int
    custom_id: str | None
    state: JobState
    sample: int
    text: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    logprobs: str | None
    model: str
    revision: str | None
    weights: str | None
    tokenizer: str | None
    #: Of the LoRA adapter that was used; None also where none was.
    adapter: str | None
    engine: str | None
    engine_version: str | None
    backend: str | None
    dtype: str | None
    device: str | None
    hardware: str | None
    worker: str | None
    #: None also where nothing is drawn: of scores and embeddings.
    seed: int | None
    #: JSON of every parameter in force, defaults included.
    params: str | None
    attempts: int
    started_at: float | None
    finished_at: float | None
    error_code: str | None
    error_message: str | None
    #: Of a score: of all its tokens (`completion_tokens`) together, in nats.
    logprob: float | None = None
    #: Of an embedding: float32 numbers.
    embedding: Vector | None = None
    #: Of a chat: what a reasoning model thought before its text.
    reasoning: str | None = None
    #: Of a chat: JSON of the calls that the answer asks for, as OpenAI writes them.
    tool_calls: str | None = None
    #: JSON of the request; None unless asked for.
    request: str | None = None
    #: The values of the input row, in the order of `Batch.input_columns` and in the form that
    #: `db.input_columns.InputColumn` gives; `ABSENT` where a JSON line lacked the key. None: the
    #: row has none of them, or could not be read.
    columns: Sequence[Any] | None = None

    @property
    def perplexity(self) -> float | None:
        """Of a score: e to the mean negative log-probability of a token."""
        return perplexity(self.logprob, self.completion_tokens)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed jobs of a batch that have the same error code."""

    code: str
    count: int
    #: The first of them, and its message.
    example: str
    message: str


class ClaimedJob(NamedTuple):
    """An unfinished job of a claimed chunk."""

    line: int
    #: JSON, as stored.
    request: str
    attempts: int


def perplexity(logprob: float | None, tokens: int | None) -> float | None:
    """Of `tokens` tokens with this log-probability together; infinite where it is too large."""
    if logprob is None or not tokens:
        return None
    try:
        return math.exp(-logprob / tokens)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, slots=True)
class Claim:
    """A chunk under this worker's lease."""

    chunk: int
    batch: int
    batch_uid: str
    token: str
    params: Mapping[str, Any]
    jobs: tuple[ClaimedJob, ...]
    #: The database's clock at the claim (unix seconds).
    now: float
    mode: Mode = Mode.GENERATE
    #: When the batch was created (unix seconds): the time that chat templates see.
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process, alive or gone."""

    name: str
    host: str
    pid: int
    queue: str
    engine: str
    model: str
    revision: str | None
    device: str
    dtype: str
    parameters: int
    kv_tokens: int | None
    capacity: int
    started_at: float
    heartbeat_at: float
    stopped_at: float | None
    jobs: int
    in_flight: int
    prompt_tokens: int
    completion_tokens: int
    tokens_per_second: float
    #: Seconds since the last heartbeat, in the database's clock.
    silent_for: float
    #: JSON: name -> digest of each LoRA adapter that is loaded beside the model; None: none.
    adapters: str | None = None
    #: By when it ends, of a worker that is shutting down (unix seconds); None: it goes on.
    stops_at: float | None = None
