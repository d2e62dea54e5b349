"""Parameters as a command line has them: `-p key=value`."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from db.errors import ParameterError
from db.exact_json import BrokenJson, loads

#: Never JSON, however they begin.
_TEXTS = frozenset({"adapter", "regex", "grammar"})
#: Lists of texts and of numbers. A lone text is a list for `stop`, and a mistake for the others.
_TEXT_LISTS, _NUMBER_LISTS = frozenset({"choice", "stop"}), frozenset({"stop_token_ids"})
_LISTS = (_TEXT_LISTS | _NUMBER_LISTS) - {"stop"}

#: A list whose texts have no double quotes: `[good, 'bad']`.
_BARE_LIST = re.compile(r"\s*\[([^\[\]{}\"]*)\]\s*")


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` from a command line; the value is JSON where it is JSON, else a string.

    A regular expression, a grammar or an adapter's name is never JSON, however it begins.

    Raises ParameterError, also for what begins as a JSON list, object or string and is none, and
    for a text where a list is needed.
    """
    name, separator, raw = text.partition("=")
    name = name.strip()
    if not separator or not name:
        raise ParameterError(f"'{text}' is not key=value, as in temperature=0.7")
    if name in _TEXTS:
        return name, raw
    try:
        return name, loads(raw)
    except BrokenJson as error:
        if raw.lstrip()[:1] in ("[", "{", '"'):
            advice = _advice(name, raw, error)
            raise ParameterError(f"'{text}' is not valid JSON: {advice}") from None
    if name in _LISTS and raw.strip():
        raise ParameterError(f"parameter '{name}' is a list: give {_as_list(name, raw)}")
    return name, raw


def _advice(name: str, raw: str, error: BrokenJson) -> str:
    bare = _BARE_LIST.fullmatch(raw)
    if bare is None or name not in _TEXT_LISTS:
        return str(error)
    return f"put the texts in double quotes: {_as_list(name, bare[1])}"


def _as_list(name: str, raw: str) -> str:
    """The assignment of a list, fit for a shell, for one that is written `a,b`."""
    texts = [part.strip().strip("\"'") for part in raw.split(",") if part.strip()]
    numeric = name in _NUMBER_LISTS and all(text.isdecimal() for text in texts)
    values = [int(text) for text in texts] if numeric else texts
    listed = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    return f"-p {shlex.quote(f'{name}={listed}')}"
