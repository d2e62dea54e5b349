"""Which keys of a request are the user's own data, to come back with its results. Pure."""

from __future__ import annotations

from collections.abc import Collection

from db.foreign_names import is_known_elsewhere, translation
from db.misspellings import near_miss
from producer.reading.keys import Names, elsewhere


def is_data(key: object, names: Names, declared: Collection[str]) -> bool:
    """Whether a key, or a column of a table, is data, and no part of the request.

    Not a name of ours, of another mode or of another system, and none that misspells one of ours:
    such a key most likely asks for something, which must not be dropped silently. `declared` keys
    (`--columns`) are data whatever they are called.
    """
    if key in declared:
        return True
    if not isinstance(key, str) or key in names.known or is_known_elsewhere(key):
        return False
    if translation(key) is not None:  # an ordinary word, such as `text`
        return True
    return not elsewhere(key, names) and near_miss(key, names.known) is None


def or_data(reason: str, key: object) -> str:
    """Why a key is refused, with what to do where it is data after all."""
    between = " If" if reason.endswith("?") else "; if"
    return f"{reason}{between} it is your own data, give --columns {key}"
