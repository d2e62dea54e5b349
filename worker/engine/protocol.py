"""What every engine promises: the seam between promptmill and a model library.

An engine is started once, takes requests from any thread, and answers each exactly once:
with a Completed, a Failed or a Cancelled. It never raises out of `submit` for a bad request;
it answers Failed. One that also measures texts (a MeasuringEngine) answers those requests with a
Scored or an Embedded, under the same promises.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from db.modes import EmbedParams, Precision, ScoreParams
from db.sampling import SamplingParams
from db.vectors import Vector

#: A prompt: text, or token ids that the model is given as they are.
PromptInput = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Request:
    """What to continue: one of `prompt`, `prompt_ids`, `prompts` and `messages` is given."""

    #: Unique among the requests that this engine holds.
    id: str
    #: All parameters, defaults included.
    params: SamplingParams
    #: What sampling is drawn from; always given, so that a repeat gives the same text.
    seed: int
    prompt: str | None = None
    #: A chat, rendered with the model's own template.
    messages: Sequence[Mapping[str, Any]] | None = None
    #: Functions that the chat may call, as OpenAI writes them: the template shows them.
    tools: Sequence[Mapping[str, Any]] | None = None
    #: The time that a chat's template sees (unix seconds): the same whenever the job runs. None:
    #: the present.
    clock: float | None = None
    #: A prompt as token ids: no special token is put before it.
    prompt_ids: Sequence[int] | None = None
    #: Several, each continued `n` times, whose samples follow each other: for `worker.prompt_lists`
    #: alone, an engine gets one at a time.
    prompts: Sequence[PromptInput] | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """How likely is it? As of a Request, one of four is given."""

    #: Unique among the requests that this engine holds.
    id: str
    params: ScoreParams
    prompt: str | None = None
    #: A chat, rendered with the model's own template.
    messages: Sequence[Mapping[str, Any]] | None = None
    #: What is scored, after the prompt; None: the prompt itself, every token after those before.
    completion: str | None = None
    #: As a Request's, like the next two.
    clock: float | None = None
    prompt_ids: Sequence[int] | None = None
    prompts: Sequence[PromptInput] | None = None


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """One vector of a text, of token ids, or of each of several."""

    #: Unique among the requests that this engine holds.
    id: str
    params: EmbedParams
    prompt: str | None = None
    #: As a Request's, like the next one.
    prompt_ids: Sequence[int] | None = None
    prompts: Sequence[PromptInput] | None = None


#: What is asked of a text that is there already: nothing is generated.
Measurement = ScoreRequest | EmbedRequest


class TopLogprob(NamedTuple):
    """One of the likeliest tokens at a position."""

    token: str
    token_id: int
    logprob: float
    #: As a TokenLogprob's.
    bytes: builtins.bytes | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token under the model's own distribution (before temperature), in nats."""

    #: What it adds to the text; the tokens of a text together are the text. A special token, which
    #: the text does not have, is there by its name.
    token: str
    token_id: int
    logprob: float
    #: The likeliest tokens at this position, best first.
    top: tuple[TopLogprob, ...] = ()
    #: What it adds where that is not whole characters, so that `token` can't say it.
    bytes: builtins.bytes | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation of a prompt."""

    #: 0 … n-1.
    index: int
    #: Of a chat: the answer alone.
    text: str
    #: `stop`: an end token or a stop string; `length`: the token limit; `tool_calls`: it calls.
    finish_reason: str
    #: Generated tokens, thinking and the end token included.
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] | None = None
    #: What a reasoning model thought before; None: nothing, or it is not marked.
    reasoning: str | None = None
    #: Functions that the answer calls, as OpenAI writes them: `{"id", "type", "function"}`.
    tool_calls: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """Every sample of the request."""

    samples: tuple[Sample, ...]
    #: The prompt's length as the model saw it.
    prompt_tokens: int
    #: Unix seconds at which the model first worked on it.
    started_at: float


@dataclass(frozen=True, slots=True)
class Scored:
    """How likely the completion is, or the text itself."""

    #: Of all scored tokens together, in nats; finite.
    logprob: float
    #: How many were scored, at least 1.
    tokens: int
    #: Tokens before these, which were given.
    prompt_tokens: int
    #: Unix seconds at which the model first worked on it.
    started_at: float
    #: A scored token each; None unless asked for.
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text as one vector."""

    #: Finite in `precision` too.
    vector: Vector
    precision: Precision
    prompt_tokens: int
    #: Unix seconds at which the model first worked on it.
    started_at: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores or embeddings of several prompts, in order: `worker.prompt_lists` makes it."""

    measurements: tuple[Scored | Embedded, ...]

    @property
    def prompt_tokens(self) -> int:
        return sum(one.prompt_tokens for one in self.measurements)

    @property
    def started_at(self) -> float:
        return min(one.started_at for one in self.measurements)


@dataclass(frozen=True, slots=True)
class Failed:
    """No result, and why."""

    #: Stable and for programs: `prompt_too_long`, `no_chat_template`, `out_of_memory`, …
    code: str
    #: For people: what was wrong and what to do.
    message: str
    #: Whether the same request may pass another time.
    retriable: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`cancel` was heard before the text was complete."""


Outcome = Completed | Scored | Embedded | Measured | Failed | Cancelled

#: Called once a request with its id and outcome, from a thread of the engine's: return at once. It
#: may submit another request.
OnDone = Callable[[str, Outcome], None]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was loaded: recorded with every result."""

    engine: str
    engine_version: str
    model: str
    #: The checkpoint's commit or digest; None where it can't be told.
    revision: str | None
    device: str
    #: What is computed in, and how weights are packed if they are: `bfloat16, bnb-4bit`. 20
    #: characters at most.
    dtype: str
    #: Parameters of the model.
    parameters: int
    #: Requests that run at once, at most.
    capacity: int
    #: Tokens that the KV cache holds; None: not bounded by the engine.
    kv_tokens: int | None = None
    #: Tokens of prompt and text together that the model takes; None: no limit.
    context_length: int | None = None
    #: Which of its ways of computing the engine took, where they may round otherwise.
    backend: str | None = None
    #: What the device is: a GPU's name, or a processor's kind and instructions.
    hardware: str | None = None
    #: Where the files that were loaded lie on this machine, or the one that holds all of them:
    #: weights and tokenizer are told by their digests. None: not here, as those of a hosted model.
    folder: Path | None = None
    #: LoRA adapters that are loaded beside the model, by name: their digests.
    adapters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How the engine fares now."""

    #: Requests taken and not yet answered.
    in_flight: int
    #: How many of these may run at once now (lower than EngineInfo.capacity after running out
    #: of memory).
    capacity: int
    #: Tokens since the start.
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: Seconds since the model last made a token or stood idle: a hang shows here.
    stalled_for: float = 0.0
    #: Why it fails every request from now on, so that its process is to be started again; None:
    #: it does not.
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How to load: everything an engine may need, nothing it must read elsewhere."""

    model: str
    #: `auto`, `cpu`, `cuda` or `cuda:N`.
    device: str = "auto"
    #: `auto` (as the checkpoint says), `float32`, `bfloat16` or `float16`.
    dtype: str = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    #: Requests that run at once, at most; None: the engine's own default for the device.
    max_concurrency: int | None = None
    #: Share of the device's free memory for the KV cache; None: the engine's safe default.
    kv_memory_fraction: float | None = None
    #: Tokens that one forward pass handles, at most; None: the engine's own default.
    max_batch_tokens: int | None = None
    #: Engine-specific settings, by name.
    options: Mapping[str, str] = field(default_factory=dict)
    #: LoRA adapters to load beside the model: name -> folder, or hub id.
    adapters: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """One loaded model on one device."""

    def start(self) -> EngineInfo:
        """Load the model and be ready. Raises ModelLoadError with the reason."""
        ...

    def submit(self, request: Request, on_done: OnDone) -> None:
        """Take a request; `on_done` follows exactly once, maybe before this returns."""
        ...

    def cancel(self, request_id: str) -> None:
        """Stop working on it soon; it answers Cancelled unless it was already done."""
        ...

    def stats(self) -> EngineStats:
        """Cheap, from any thread."""
        ...

    def close(self) -> None:
        """Stop and free the device; what is still in flight answers Cancelled. Idempotent."""
        ...


@runtime_checkable
class MeasuringEngine(Engine, Protocol):
    """An engine that scores and embeds, too; `cancel`, `stats` and `close` mean these as well."""

    def measure(self, request: Measurement, on_done: OnDone) -> None:
        """As `submit`, for a request whose text is there already."""
        ...
