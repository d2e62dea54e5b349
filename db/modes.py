"""What a batch asks of a model: text that goes on, the probability of a text, or its embedding.

Decided once a batch. Each mode has its own parameters; `db.sampling` validates all three.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from db.adapters import AdapterName
from db.errors import UsageError
from db.numbers import Whole

Pooling = Literal["mean", "last", "first"]
Precision = Literal["float32", "float16"]


class Mode(StrEnum):
    """What becomes of every prompt of a batch."""

    #: Continue it: `db.sampling.SamplingParams`.
    GENERATE = "generate"
    #: Say how likely its completion, or it itself, is.
    SCORE = "score"
    #: Make one vector of it.
    EMBED = "embed"


class ScoreParams(BaseModel):
    """How a completion, or a text, is scored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: Return each token's log-probability; a number asks for that many alternatives too.
    logprobs: bool | Annotated[Whole, Field(ge=0, le=20)] = False
    #: Put the tokenizer's special tokens, such as BOS, around the prompt. None: around a prompt
    #: yes, around a chat no, whose template writes its own.
    add_special_tokens: bool | None = None
    #: The LoRA adapter, by its name, that the model works with.
    adapter: AdapterName = None

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not False

    @property
    def alternatives(self) -> int:
        """How many likeliest tokens to report at each position."""
        return 0 if isinstance(self.logprobs, bool) else self.logprobs


class EmbedParams(BaseModel):
    """How one vector is made of a text's last hidden states."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: The mean over all tokens, or the state of the last or the first one.
    pooling: Pooling = "mean"
    #: Scale it to Euclidean length 1.
    normalize: bool = False
    #: What it is stored as.
    precision: Precision = "float32"
    #: Put the tokenizer's special tokens, such as BOS, around the text. None: yes.
    add_special_tokens: bool | None = None
    #: The LoRA adapter, by its name, that the model works with.
    adapter: AdapterName = None


def as_mode(word: str) -> Mode:
    """The mode of that name. Raises UsageError."""
    try:
        return Mode(word)
    except ValueError:
        raise UsageError(f"mode '{word}' is none of {', '.join(Mode)}") from None
