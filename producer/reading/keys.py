"""The names that a request may use, and what to offer for one that it may not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from db.foreign_names import advice, is_neutral, translation
from db.misspellings import near_miss
from db.modes import Mode
from db.sampling import parameter_names
from producer.reading.texts import Refusal, shown

#: What every request may have besides its text.
_COMMON = ("custom_id", "model", "params")


@dataclass(frozen=True, slots=True)
class Names:
    """What a request of one mode is made of."""

    mode: Mode
    #: Keys that may hold the prompt, the usual one first.
    prompts: tuple[str, ...]
    #: All keys that are no parameters.
    request: tuple[str, ...]
    parameters: frozenset[str]

    @property
    def known(self) -> tuple[str, ...]:
        return (*self.request, *sorted(self.parameters))

    @property
    def needed(self) -> tuple[str, ...]:
        """One of these must be there."""
        return tuple(key for key in (*self.prompts, "messages") if key in self.request)


def _names(mode: Mode, prompts: tuple[str, ...], *others: str) -> Names:
    request = (*prompts, *others, *_COMMON)
    return Names(mode, prompts, request, frozenset(parameter_names(mode)))


#: By mode.
NAMES = {
    Mode.GENERATE: _names(Mode.GENERATE, ("prompt",), "messages", "tools"),
    Mode.SCORE: _names(Mode.SCORE, ("prompt", "text"), "messages", "completion"),
    Mode.EMBED: _names(Mode.EMBED, ("prompt", "text")),
}


def nearest(key: object, known: Collection[str]) -> str:
    """The end of a message about an unknown key: the name that is meant, else all of them."""
    own = translation(str(key))
    near = own if own in known else near_miss(str(key), known)
    return f"did you mean '{near}'?" if near else f"known are {', '.join(known)}"


def check_parameter_name(key: object, value: object, names: Names) -> None:
    """Refusal unless `key` is the name of a parameter of the mode.

    Of another system's parameter, `db.sampling.normalise` decides by its value.
    """
    if key in names.parameters or is_neutral(key, value) or advice(str(key), value) is not None:
        return
    others = elsewhere(key, names)
    if others and translation(str(key)) is None:
        raise Refusal(f"unknown key {shown(key)}{others}: give that --mode, or remove it")
    raise Refusal(f"unknown key {shown(key)}{others}: {nearest(key, names.known)}")


def elsewhere(key: object, names: Names) -> str:
    """Which other modes have this key, for a message; empty for none."""
    modes = [mode for mode, other in NAMES.items() if mode is not names.mode and key in other.known]
    return f" (of mode {' or '.join(modes)})" if modes else ""
