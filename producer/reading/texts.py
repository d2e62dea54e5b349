"""Checks on one piece of text, and how values are named to people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal

from db.errors import UsageError
from db.faults import Faults

#: What a prompt may take, in bytes of UTF-8; the setting PROMPTMILL_MAX_PROMPT_BYTES changes it.
DEFAULT_MAX_PROMPT_BYTES = 2 * 2**20

#: Characters of a custom_id, at most.
MAX_CUSTOM_ID = 256

_SHOWN = 60


class Refusal(UsageError):
    """One request is bad; each of its faults says what is wrong and what to do."""

    @property
    def reason(self) -> str:
        """All of it in one text."""
        return self.message


class LineFaults(Faults):
    """What is wrong with one request."""

    caught = kind = Refusal


def kind(value: object) -> str:
    """A value's type as a person who writes JSON calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return f"a {type(value).__name__}"


def shown(value: object) -> str:
    """A value for a message: printable, in one line, cut short."""
    text = ascii(value[: _SHOWN + 1]) if isinstance(value, str) else ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def json_text(value: object) -> str:
    """A value as JSON is stored, but for NUL, which JSON would hide."""
    return json.dumps(value, ensure_ascii=False).replace("\\u0000", "\0")


def is_plain(text: object, longest: int) -> bool:
    """Whether it is text of 1 … `longest` ASCII characters that any database stores.

    What most texts are; whatever else it is, the checks below say.
    """
    return type(text) is str and 0 < len(text) <= longest and text.isascii() and "\0" not in text


def check_text(text: str, what: str) -> int:
    """The text's size in bytes of UTF-8; Refusal where a database could not store it."""
    if "\0" in text:
        raise Refusal(
            f"{what} has a NUL character at position {text.index(chr(0))}: "
            "PostgreSQL can't store it, remove it"
        )
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise Refusal(
            f"{what} has a lone surrogate (\\u{ord(text[error.start]):04x}) at position "
            f"{error.start}: it is not valid Unicode, remove it or write the whole pair"
        ) from None


def check_prompt(prompt: object, limit: int) -> str:
    """The prompt itself; Refusal unless it is a storable text of 1 … `limit` bytes."""
    return _check_filled(prompt, limit, "the prompt")


def check_completion(completion: object, limit: int) -> str:
    """The completion itself; Refusal unless it is a storable text of 1 … `limit` bytes."""
    return _check_filled(completion, limit, "the completion")


def _check_filled(text: object, limit: int, what: str) -> str:
    if not isinstance(text, str):
        raise Refusal(f"{what} is {kind(text)}: it must be text, in quotes")
    if not text:
        raise Refusal(f"{what} is empty: give it text or remove it")
    check_size(check_text(text, what), limit, what)
    return text


def check_size(size: int, limit: int, what: str) -> None:
    """Refusal where `size` bytes are more than `limit`."""
    if size > limit:
        raise Refusal(
            f"{what} has {size:,} bytes, more than {limit:,}: "
            "shorten it or raise PROMPTMILL_MAX_PROMPT_BYTES"
        )


def check_custom_id(value: object) -> str | None:
    """The custom_id, None where it is null; Refusal unless it is a text of 1 … 256 characters.

    A number is its digits as text: 7 is "7".
    """
    if value is None:
        return None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        value = format(value, "f") if isinstance(value, Decimal) else str(value)
    if not isinstance(value, str):
        raise Refusal(f"custom_id is {kind(value)}: it must be text or a number")
    if not 1 <= len(value) <= MAX_CUSTOM_ID:
        raise Refusal(f"custom_id has {len(value)} characters: it must have 1 to {MAX_CUSTOM_ID}")
    check_text(value, "custom_id")
    return value


def check_model(value: object) -> str | None:
    """The model's name, None where it is null; Refusal unless it is a non-empty text."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        what = "empty" if value == "" else kind(value)
        raise Refusal(f"the model is {what}: name one, or leave it out")
    check_text(value, "the model's name")
    return value
