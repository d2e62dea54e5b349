"""Whether a text follows a grammar of llguidance's: read byte by byte, without a model's tokens."""

from __future__ import annotations

from collections.abc import Callable

#: Why a text is not what was asked for, in words that quote nothing of it; None: it is.
Check = Callable[[str], str | None]


def byte_checker(grammar: str, name: str) -> Check:
    """Of llguidance's `grammar`. Raises ValueError where texts can't be checked so."""
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
