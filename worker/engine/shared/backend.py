"""What a back-end promises the engine, and which one a model gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from worker.engine.protocol import Failed, Measurement, OnDone
from worker.engine.shared.continuation import Continuation

#: Kinds of attention whose keys and values a paged cache holds.
PAGED_ATTENTION = frozenset({"full_attention", "sliding_attention"})

#: Called once a continuation, from a thread of the back-end's, with None when it is done or
#: with why it has failed. Never for one that was cancelled.
OnEnd = Callable[[Continuation, Failed | None], None]


@dataclass(slots=True)
class Progress:
    """How far the model is; written by one thread, read by any."""

    completion_tokens: int = 0
    #: time.monotonic() at which it last made a token.
    last_step: float = field(default_factory=time.monotonic)

    def step(self, tokens: int) -> None:
        self.completion_tokens += tokens
        self.last_step = time.monotonic()


class Backend(Protocol):
    """Turns continuations into done ones. Every method may be called from any thread."""

    #: Which one it is, for whoever asks what made a text.
    name: str
    #: Samples that run at once, at most; falls after running out of memory.
    capacity: int
    #: Tokens that the KV cache holds in all, and of one sample (prompt and text) at most;
    #: None: not bounded.
    kv_tokens: int | None
    longest: int | None
    progress: Progress

    @property
    def broken(self) -> str | None:
        """Why it answers everything with a failure from now on; None: it does not."""
        ...

    def start(self, on_end: OnEnd) -> None:
        """Take the memory and start the threads. Raises ModelLoadError if it does not fit."""
        ...

    def submit(self, continuations: Iterable[Continuation]) -> None:
        """Work on them as room comes; `on_end` follows once each."""
        ...

    def cancel(self, continuations: Iterable[Continuation]) -> None:
        """Drop them; `on_end` is not called for those that had not ended."""
        ...

    def close(self) -> None:
        """Stop the threads and give the memory back. Idempotent."""
        ...


class MeasuringBackend(Protocol):
    """Scores and embeds beside a Backend. Every method may be called from any thread."""

    progress: Progress
    #: Of all that it has taken.
    prompt_tokens: int

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        ...

    def measure(self, request: Measurement, on_done: OnDone) -> None:
        """Take a request; `on_done` follows exactly once, maybe before this returns."""
        ...

    def cancel(self, request_id: str) -> None:
        """Answer Cancelled, if it is still open."""
        ...

    def close(self) -> None:
        """Answer Cancelled for what is left and stop the threads. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Traits:
    """What decides whether a model's cache can be paged."""

    encoder_decoder: bool
    #: It carries a state of fixed size instead of keys and values.
    stateful: bool
    #: Its attention goes through transformers' interface, where a paged cache hooks in.
    attention_interface: bool
    attention_kinds: frozenset[str]


def traits(model: Any) -> Traits:
    """A loaded model's traits."""
    shape = model.config.get_text_config()
    kinds = getattr(shape, "layer_types", None) or ["full_attention"]
    return Traits(
        encoder_decoder=bool(model.config.is_encoder_decoder),
        stateful=bool(getattr(model, "_is_stateful", False)),
        attention_interface=bool(getattr(model, "_supports_attention_backend", False)),
        attention_kinds=frozenset(kinds),
    )


def why_not_continuous(model: Traits) -> str | None:
    """Why continuous batching can't take such a model; None: it can."""
    if model.encoder_decoder:
        return "it is an encoder-decoder"
    if model.stateful:
        return "it is a state-space model"
    if not model.attention_interface:
        return "its attention does not go through transformers' attention interface"
    strange = model.attention_kinds - PAGED_ATTENTION
    if strange:
        return f"it has layers of kind {', '.join(sorted(strange))}"
    return None
