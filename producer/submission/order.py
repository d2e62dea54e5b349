"""What is submitted, what becomes of it, and what refuses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from db.adapters import check_names
from db.errors import ConflictError, InputError, UsageError
from db.faults import Faults
from db.modes import Mode
from db.records import Batch
from producer.reading import BadLine
from producer.submission.bad_lines import grouped, refusal

#: Seconds: ten years.
_LONGEST = 10 * 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is submitted, besides the prompts themselves."""

    model: str
    name: str | None = None
    idempotency_key: str | None = None
    #: A batch of its own, though the same content was submitted under the name; from now on the
    #: name finds this one.
    fresh: bool = False
    #: What else changes the texts, such as the engine of `run`: content of another variant is other
    #: content.
    variant: str = ""
    #: What is asked of the model, of every line alike.
    mode: Mode = Mode.GENERATE
    params: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: 0 … 9, higher is sooner.
    priority: int = 5
    #: Bad lines become failed jobs, and the rest runs.
    skip_invalid: bool = False
    #: Run a line that names another model with this one.
    ignore_line_model: bool = False
    #: LoRA adapters that a line's `model` may name: it runs with that one.
    adapters: frozenset[str] = frozenset()
    #: Jobs of a chunk at most; None: the number of jobs decides.
    chunk_size: int | None = None
    #: Seconds after which what is unfinished expires; None: never.
    expires: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError as `check_terms` does."""
        check_terms(
            self.model,
            name=self.name,
            idempotency_key=self.idempotency_key,
            metadata=self.metadata,
            adapters=self.adapters,
            expires=self.expires,
        )


def check_terms(
    model: str | None,
    *,
    name: str | None = None,
    idempotency_key: str | None = None,
    metadata: Mapping[str, str] | None = None,
    adapters: Iterable[str] = (),
    expires: float | None = None,
    **_others: object,
) -> None:
    """Raises UsageError with all that the database, or OpenAI's clients, would not take.

    These are fields of an Order, before there is one; `model` of None is still to be read.
    """
    faults = Faults()
    if expires is not None and not 0 < expires <= _LONGEST:
        faults.add("expires: give more than 0 seconds, and at most ten years")
    faults.of(check_names, adapters, model)
    faults.of(_check_length, "name", name, 200)
    faults.of(_check_length, "idempotency key", idempotency_key, 300)
    for fault in metadata_faults(metadata or {}):
        faults.add(fault)
    faults.raise_all()


def metadata_faults(metadata: Mapping[str, str]) -> list[str]:
    """What OpenAI's clients would not take of a batch's labels."""
    faults = [
        f"metadata '{key[:64]}': a key has 1 to 64 characters, a value up to 512"
        for key, value in metadata.items()
        if not 1 <= len(key) <= 64 or len(value) > 512
    ]
    if len(metadata) > 16:
        faults.append(f"metadata has {len(metadata)} pairs: 16 at most")
    return faults


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of it."""

    batch: Batch
    #: False: the same content was submitted before, and this is that batch.
    created: bool
    #: Messages on their way; fewer than chunks where Redis is away.
    sent: int
    #: Why they are not all on their way.
    unsent_reason: str | None = None
    #: A batch of the same content that was passed over, and why.
    outdated: tuple[Batch, str] | None = None
    #: What was decided for the user, a line each: what `--template` made of its rows, the mode.
    notes: tuple[str, ...] = ()


class InvalidInput(InputError):
    """Lines that can't become requests; nothing of the file was queued."""

    def __init__(self, bad: list[BadLine], count: int) -> None:
        self.bad = bad
        self.count = count
        #: The lines of `bad`, those with the same reason together.
        self.groups = grouped(bad)
        super().__init__(refusal(self.groups, count))


def other_content(key: str, batch: str) -> ConflictError:
    """The key is taken by a batch of other content."""
    return ConflictError(
        f"idempotency key '{key}' belongs to batch {batch}, which has other content: "
        "choose another key"
    )


def _check_length(what: str, text: str | None, longest: int) -> None:
    if text is not None and not 1 <= len(text) <= longest:
        raise UsageError(f"the {what} has {len(text)} characters: 1 to {longest} are allowed")
