"""Whether a text is what its structure asks for.

Where a model is guided, its texts are of their structure by themselves; what an endpoint sends may
be anything. A regular expression and a grammar are checked by llguidance, which also guides; JSON
by its schema, in whichever order and with whatever spaces it is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache

from db.json_validity import json_checker
from db.structure import Structure, compiled

#: Why a text is not what was asked for, in words that quote nothing of it; None: it is.
Check = Callable[[str], str | None]

_REMEMBERED = 256


@lru_cache(maxsize=_REMEMBERED)
def checker(wanted: Structure) -> Check:
    """The check of this structure's texts. Raises ValueError where they can't be checked."""
    if wanted.kind == "json_schema":
        return json_checker(wanted.text)
    if wanted.kind == "choice":
        choices = frozenset(json.loads(wanted.text))
        return lambda text: None if text in choices else "it is none of the choices"
    name = {"regex": "regular expression", "grammar": "grammar"}[wanted.kind]
    return byte_checker(compiled(wanted), f"the {name}")


def byte_checker(grammar: str, name: str) -> Check:
    """Of llguidance's `grammar`, read byte by byte. Raises ValueError as `checker`."""
    from llguidance import LLMatcher, LLTokenizer

    start = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    _, warnings = LLMatcher.validate_grammar_with_warnings(grammar)
    reason = " ".join(start.get_error().split())
    if any("no tokenizer" in warning for warning in warnings):
        reason = "it names tokens of a model, which no text shows"
    if reason:
        raise ValueError(f"retry_invalid: texts can't be checked against {name}: {reason}")

    def check(text: str) -> str | None:
        matcher = start.deep_copy()
        tokens = list(text.encode("utf-8", "replace"))
        if matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting():
            return None
        return f"it does not follow {name}"

    return check
