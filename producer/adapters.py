"""LoRA adapters as a command names them: `NAME=PATH`, besides those of the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from db.errors import UsageError
from db.faults import Faults


def with_places(known: Mapping[str, str], given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """`known` and over them the given ones, each folder by its absolute path.

    Raises UsageError for every name that is given twice, and every folder that is not there.
    """
    faults = Faults()
    named: dict[str, str] = {}
    for name, place in given:
        if name in named:
            faults.add(f"adapter '{name}' is given twice: keep one")
        named[name] = place
    places = {name: faults.of(_place, name, place) for name, place in {**known, **named}.items()}
    faults.raise_all()
    return {name: place for name, place in places.items() if place is not None}


def _place(name: str, place: str) -> str:
    """A folder's absolute path, or a hub id as it is."""
    path = Path(place).expanduser()
    try:
        if path.is_dir():
            return str(path.resolve())
        if path.exists():
            raise UsageError(f"adapter '{name}': {place} is a file: give the folder that holds it")
    except OSError as error:
        raise UsageError(f"adapter '{name}': {place}: {error.strerror}") from None
    if place.count("/") != 1 or place.startswith((".", "~", "/")):
        raise UsageError(f"adapter '{name}': {place}: no such folder: check the path")
    return place
