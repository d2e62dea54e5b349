"""Numbers of tools, calls and template variables keep their digits in a rendered chat. Pure.

A template gets plain floats, and writes 1.1 for 1.10. In place of a number whose digits a float
does not keep, it gets one that differs by less than a billionth and whose digits stand nowhere
else; in the rendered text, these are replaced by the digits as written.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from db.exact_json import WrittenNumber, dumps


class StandIns:
    """Numbers that stand in for those of one chat."""

    def __init__(self, source: str, *given: Any) -> None:
        """`source` is the template's text, `given` all that it is given."""
        self._texts: dict[str, str] = {}
        self._values: dict[str, float] = {}
        written = {number.text: number for number in _written(given)}
        if not written:
            return
        there = source + dumps(given).decode()
        for text, number in written.items():
            value = next(
                near
                for near in _near(float(number))
                if repr(near) not in there and repr(near) not in self._texts
            )
            self._values[text] = value
            self._texts[repr(value)] = text

    def put(self, value: Any) -> Any:
        """The value with the stand-ins in it; itself where there are none."""
        return self._put(value) if self._values else value

    def restored(self, text: str) -> str:
        """The rendered text with the digits as written."""
        if not self._texts:
            return text
        pattern = "|".join(map(re.escape, self._texts))
        return re.sub(rf"(?<![\d.])(?:{pattern})(?![\d.])", lambda at: self._texts[at[0]], text)

    def _put(self, value: Any) -> Any:
        if isinstance(value, WrittenNumber):
            return self._values[value.text]
        if isinstance(value, Mapping):
            return {key: self._put(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._put(inner) for inner in value]
        return value


def json_text(value: Any) -> str:
    """The value as `json.dumps` writes it for a template, numbers with their digits as written."""
    numbers = StandIns("", value)
    return numbers.restored(json.dumps(numbers.put(value), ensure_ascii=False))


def _written(value: Any) -> Iterator[WrittenNumber]:
    if isinstance(value, WrittenNumber):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _written(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _written(inner)


def _near(value: float) -> Iterator[float]:
    """Floats next to the value, without end; what overflows is near the largest float."""
    if math.isinf(value):
        value = math.copysign(sys.float_info.max, value)
    toward = math.copysign(0.0 if abs(value) >= 1 else math.inf, value)
    while True:
        value = math.nextafter(value, toward)
        yield value
