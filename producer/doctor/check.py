"""One finding of the doctor's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from db.errors import PromptmillError

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and what to do."""

    name: str
    #: `warning`: it works, and something may surprise you; `error`: it does not work.
    state: State
    finding: str
    advice: str | None = None


def carried_out(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """What `look` finds; an error under `name` where it can't look. Never raises."""
    try:
        yield from look()
    except PromptmillError as error:
        yield Check(name, "error", error.message)
    except Exception as error:  # noqa: BLE001 - a doctor tells of every failure, its own too
        reason = " ".join(str(error).split()) or "no reason given"
        yield Check(name, "error", f"this check failed: {type(error).__name__}: {reason}")


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / (1 << 30):.1f} GiB"
