"""Prompts that the benchmarks share, each fixed by its seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: Common words: about one token each in every tokenizer.
_TEXT = """
time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work
government number night point home water room mother area money story fact month lot
right study book eye job word business issue side kind head house service friend father
power hour game line end member law car city community name president team minute idea
body information back parent face others level office door health person art war
history party result change morning reason research girl guy moment air teacher force
education
"""
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt and the number of tokens that it asks for."""

    prompt: str
    max_tokens: int

    def line(self, number: int) -> dict[str, Any]:
        """As a request line of promptmill's: greedy, and of exactly `max_tokens` tokens."""
        return {
            "custom_id": f"r{number}",
            "prompt": self.prompt,
            "params": {"max_tokens": self.max_tokens, "temperature": 0, "ignore_eos": True},
        }


def mixed(count: int, seed: int = 0) -> list[Task]:
    """Prompts of 8 to 160 words, 16 to 128 new tokens each, evenly spread."""
    draw = random.Random(seed)
    return [Task(_text(draw, draw.randint(8, 160)), draw.randint(16, 128)) for _ in range(count)]


def shared_prefix(count: int, seed: int = 0, prefixes: int = 4, length: int = 384) -> list[Task]:
    """Short questions under one of a few long system prompts, in random order."""
    draw = random.Random(seed)
    systems = [_text(draw, length) for _ in range(prefixes)]
    return [
        Task(f"{draw.choice(systems)}. {_text(draw, draw.randint(4, 16))}", 16)
        for _ in range(count)
    ]


def heavy_tail(count: int, seed: int = 0) -> list[Task]:
    """Most texts are short, some are very long (Pareto, at most 512 tokens)."""
    draw = random.Random(seed)
    return [
        Task(
            _text(draw, draw.randint(8, 32)),
            min(512, 8 + int(8 * draw.paretovariate(1.1))),
        )
        for _ in range(count)
    ]


def lines(count: int) -> Iterator[dict[str, str]]:
    """Prompts for the `echo` engine: short and all different."""
    for number in range(1, count + 1):
        yield {"prompt": f"prompt number {number} of {count}"}


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(_WORDS, k=words))
