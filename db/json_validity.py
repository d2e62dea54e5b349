"""Whether a text is JSON of a schema, by `jsonschema`.

Three keywords mean what they mean to llguidance, which guides: `pattern` and its like take RE2's
syntax (Python's own would take time without end on some), `format` is one of llguidance's, and
`multipleOf` is exact for decimals. No reference is ever fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation, localcontext
from functools import lru_cache
from typing import Any, NoReturn

from db.byte_validity import Check, byte_checker

#: Formats that llguidance follows; it refuses any other.
FORMATS = (
    *("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"),
)

#: Digits that hold the quotient of any two double numbers.
_DIGITS = 800
_REMEMBERED = 1024

#: `\u00e9` and `\u{e9}`, which RE2 writes otherwise; `\\` before it is a backslash.
_UNICODE_ESCAPE = re.compile(r"(\\\\)|\\u(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{4}))")


def json_checker(schema: str) -> Check:
    """Why a text is no JSON of this schema (JSON); None: it is.

    The reason names a place in the schema and quotes nothing of the text. Raises ValueError where
    the schema can't be checked.
    """
    validator = _validator(json.loads(schema))

    def check(text: str) -> str | None:
        try:
            value = json.loads(text, parse_constant=_no_number)
        except RecursionError:
            return "it is nested too deeply"
        except ValueError:
            return "it is no JSON"
        try:
            error = next(validator.iter_errors(value), None)
        except RecursionError:
            return "it is nested too deeply"
        if error is None:
            return None
        place = ".".join(str(part) for part in error.absolute_schema_path)
        return f"it breaks the schema at {place[:200] or 'its top'}"

    return check


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _validator(schema: Any) -> Any:
    """Of the draft that the schema names, else of the newest one that it is a schema of."""
    from jsonschema import FormatChecker
    from jsonschema.validators import extend
    from jsonschema_specifications import REGISTRY

    base = _draft(schema)
    for pattern in _patterns(schema):
        _finds(pattern, "")
    own = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "multipleOf": _multiple_of,
    }
    formats = FormatChecker(formats=())
    for name in FORMATS:
        formats.checks(name)(_of_format(name))
    # Without its `$schema`: a reference to the top would leave these keywords for the draft's own.
    plain = {key: value for key, value in schema.items() if key != "$schema"}
    made: Any = extend(base, own)  # type: ignore[no-untyped-call]
    validator = made(plain, registry=REGISTRY, format_checker=formats)
    try:
        validator.is_valid(None)
    except Exception as error:  # noqa: BLE001 - whatever it is: a reference without an end
        raise ValueError(
            f"retry_invalid: texts can't be checked against the schema: {type(error).__name__}"
        ) from None
    return validator


def _draft(schema: Mapping[str, Any]) -> Any:
    from jsonschema import FormatChecker, validators
    from jsonschema.exceptions import SchemaError

    no_formats = FormatChecker(formats=())  # among them `regex`, as Python has it

    drafts: list[Any] = [
        *(validators.Draft202012Validator, validators.Draft201909Validator),
        *(validators.Draft7Validator, validators.Draft6Validator, validators.Draft4Validator),
    ]
    if "$schema" in schema:
        drafts = [validators.validator_for(schema, default=drafts[0])]
    reason = ""
    for draft in drafts:
        try:
            draft.check_schema(schema, format_checker=no_formats)
            return draft
        except SchemaError as error:
            reason = reason or f"{error.json_path}: {error.message}"
    shown = " ".join(reason.split())[:200]
    raise ValueError(f"retry_invalid: texts can't be checked against the schema: {shown}")


def _patterns(schema: Any) -> Iterator[str]:
    """Every pattern in it, where it is one or might be."""
    if isinstance(schema, Mapping):
        found = schema.get("pattern")
        if isinstance(found, str):
            yield found
        named = schema.get("patternProperties")
        if isinstance(named, Mapping):
            yield from named
    inner = schema.values() if isinstance(schema, Mapping) else schema
    if isinstance(schema, Mapping | list):
        for part in inner:
            yield from _patterns(part)


def _finds(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text. Raises ValueError for one that is none."""
    import pyarrow as pa
    from pyarrow import compute

    try:
        found = compute.match_substring_regex(pa.scalar(text, pa.string()), _in_re2(pattern))
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"retry_invalid: the schema's pattern {pattern[:80]!r} can't be checked: "
            f"{' '.join(str(error).split())[:120]}"
        ) from None
    return bool(found.as_py())


@lru_cache(maxsize=_REMEMBERED)
def _in_re2(pattern: str) -> str:
    def other(match: re.Match[str]) -> str:
        return match[1] or rf"\x{{{match[2] or match[3]}}}"

    return _UNICODE_ESCAPE.sub(other, pattern)


def _of_format(name: str) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if not isinstance(value, str):
            return True
        return _format_checker(name)(json.dumps(value, ensure_ascii=False)) is None

    return check


@lru_cache(maxsize=len(FORMATS))
def _format_checker(name: str) -> Check:
    from llguidance import LLMatcher

    schema = json.dumps({"type": "string", "format": name})
    return byte_checker(LLMatcher.grammar_from_json_schema(schema), name)


def _pattern(validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[Any]:
    if validator.is_type(value, "string") and not _finds(pattern, value):
        yield _error("pattern")


def _pattern_properties(validator: Any, named: Any, value: Any, _schema: Any) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    for pattern, inner in named.items():
        for key, one in value.items():
            if _finds(pattern, key):
                yield from validator.descend(one, inner, path=key, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, one in value.items():
        if key not in known and not any(_finds(pattern, key) for pattern in patterns):
            yield from validator.descend(one, inner, path=key)


def _multiple_of(validator: Any, step: Any, value: Any, _schema: Any) -> Iterator[Any]:
    """Of the numbers as they are written: 0.3 is three times 0.1."""
    if not validator.is_type(value, "number"):
        return
    with localcontext(prec=_DIGITS):
        try:
            rest = Decimal(str(value)) % Decimal(str(step))
        except InvalidOperation:
            rest = Decimal("NaN")
    if rest != 0:
        yield _error("multipleOf")


def _error(keyword: str) -> Exception:
    from jsonschema import ValidationError

    return ValidationError(f"'{keyword}' does not hold")
