"""Which known name an unknown one misspells, and none where the words mean something else. Pure."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from db.foreign_names import FOREIGN_NAMES, find, snake_case

#: Letters of a word. Shorter ones than the first have to be right. Up to the second, letters may
#: be swapped, missing or too many; up to the third, one may be wrong; beyond, two.
_SHORT, _BRIEF, _MEDIUM = 3, 4, 6


def near_miss(name: str, known: Collection[str]) -> str | None:
    """The known name that this one misspells; None rather than one of another meaning.

    Each word of the name may be misspelt by one letter, a long one by two. A word that is itself
    part of some parameter's name is no misspelling: `min_tokens` is not `max_tokens`, and `stop_p`
    is not `top_p`.
    """
    return None if find(name) is not None else _near_miss(snake_case(name), tuple(known))


@lru_cache(maxsize=1024)
def _near_miss(name: str, known: tuple[str, ...]) -> str | None:
    distances = {other: _misspelling(name, other) for other in known}
    near = [(distance, other) for other, distance in distances.items() if distance is not None]
    return min(near)[1] if near else None


def _misspelling(name: str, known: str) -> int | None:
    """How many letters are wrong; None: too many, or words that mean something else."""
    joined, words, own = known.replace("_", ""), known.split("_"), name.split("_")
    if name.replace("_", "") == joined:
        return 0
    if sorted(own) == sorted(words):
        return 1
    if len(own) == len(words):
        letters = [_wrong_letters(*pair) for pair in zip(own, words, strict=True)]
        return None if None in letters else sum(filter(None, letters))
    one_word = len(own) == 1 and len(name) > _MEDIUM
    return 1 if one_word and _distance(name, joined) == 1 else None


def _wrong_letters(word: str, known: str) -> int | None:
    """Of one word: few enough for a misspelling, else None."""
    if word == known:
        return 0
    if word in (known + "s", known.removesuffix("s")):
        return 1
    if word in _words() or min(len(word), len(known)) < _SHORT:
        return None
    distance = _distance(word, known)
    if len(known) <= _BRIEF and len(word) == len(known) and sorted(word) != sorted(known):
        return None  # another letter makes another word: step, stop
    return distance if distance <= (1 if len(known) <= _MEDIUM else 2) else None


@lru_cache(maxsize=1)
def _words() -> frozenset[str]:
    """Words of known names."""
    return frozenset(word for name in FOREIGN_NAMES for word in name.split("_")) | {
        *("top", "stop", "min", "max", "token", "tokens", "prompt", "message", "messages"),
        *("completion", "completions", "choice", "seed", "echo", "param", "params", "ids"),
    }


def _distance(a: str, b: str) -> int:
    """Letters to insert, delete, change or swap with their neighbour (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        row = [i]
        for j, other in enumerate(b, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
