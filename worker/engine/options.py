"""Reading an engine's own options: EngineConfig.options is text by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping

from db.errors import SettingsError
from db.faults import Faults


def check_names(engine: str, options: Mapping[str, str], known: Collection[str]) -> None:
    """Raise SettingsError with every option that the engine does not have."""
    faults = []
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            faults.append(
                f"engine '{engine}' has no option '{name}': {hint}known: {', '.join(sorted(known))}"
            )
    if faults:
        raise SettingsError(*faults)


def choice(options: Mapping[str, str], name: str, allowed: Collection[str], default: str) -> str:
    """An option that is one of a few words."""
    value = options.get(name, default)
    if value not in allowed:
        raise SettingsError(
            f"engine option '{name}': '{value}' is not one of {', '.join(sorted(allowed))}"
        )
    return value


class OptionReader:
    """Reads an engine's options, and collects what is wrong with them.

    A bad option reads as its default until `finish`, which raises SettingsError with all faults.
    """

    def __init__(self, engine: str, options: Mapping[str, str], known: Collection[str]) -> None:
        self._options = options
        self.faults = Faults()
        self.faults.of(check_names, engine, options, known)

    def choice(self, name: str, allowed: Collection[str], default: str) -> str:
        """See `choice`."""
        value = self.faults.of(choice, self._options, name, allowed, default)
        return default if value is None else value

    def number(self, name: str, default: float, at_least: float) -> float:
        """See `number`."""
        value = self.faults.of(number, self._options, name, default, at_least)
        return default if value is None else value

    def finite(self, name: str, default: float, at_least: float) -> float:
        """A number that is not `inf`."""
        value = self.number(name, default, at_least)
        if math.isinf(value):
            self.faults.add(SettingsError(f"engine option '{name}': must be finite"))
            return default
        return value

    def finish(self) -> None:
        """Raise SettingsError with all faults, if there are any."""
        self.faults.raise_all()


def tensor_parallel(options: Mapping[str, str]) -> int | None:
    """How many devices share the model, 1 where nobody says; None: all that there are (`auto`)."""
    text = options.get("tensor_parallel", "1")
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise SettingsError(
            f"engine option 'tensor_parallel': '{text}' is neither auto nor a number of devices"
        )
    return int(text)


def number(options: Mapping[str, str], name: str, default: float, at_least: float) -> float:
    """An option that is a number of that size or more; `inf` is one."""
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not value >= at_least:
        raise SettingsError(
            f"engine option '{name}': '{text}' is not a number of {at_least:g} or more"
        )
    return value


def whole(options: Mapping[str, str], name: str, at_most: int) -> int | None:
    """An option that is a whole number from 1 to that; None: it is not given."""
    text = options.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= at_most and len(text) < 9):
        raise SettingsError(
            f"engine option '{name}': '{text}' is not a whole number from 1 to {at_most}"
        )
    return int(text)
