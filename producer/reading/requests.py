"""One decoded item becomes one request: which of the four forms it has, and whether it is valid.

    "text"                                            a prompt
    {"prompt": "text", <parameters>}                  a completion
    {"messages": [...], <parameters>}                 a chat
    {"custom_id", "method", "url", "body": {...}}     a line of an OpenAI batch file

Under a template every object is a row of data instead, and a bare text is the row
`{"text": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from db.errors import ParameterError
from db.sampling import normalise
from producer.reading import openai_batch
from producer.reading.chat import check_messages
from producer.reading.keys import REQUEST_KEYS, check_parameter_name
from producer.reading.lines import BadLine, Flaw, Line
from producer.reading.template import TEXT_COLUMN, Template
from producer.reading.texts import (
    MAX_CUSTOM_ID,
    Refusal,
    check_custom_id,
    check_model,
    check_prompt,
    check_text,
    is_plain,
    kind,
)

#: Of the commonest line: when no more than these are there, there is little to check.
_PLAIN_KEYS = frozenset(("prompt", "custom_id"))

#: Distinct sets of parameters whose validation is remembered: a file mostly repeats a few.
_REMEMBERED = 1024


class RequestParser:
    """Validates items under one batch's template, default parameters and size limit."""

    def __init__(
        self, template: Template | None, defaults: Mapping[str, Any] | None, max_prompt_bytes: int
    ) -> None:
        self.template = template
        self._defaults = dict(defaults or {})
        self._max_prompt_bytes = max_prompt_bytes
        self._validated: dict[bytes, dict[str, Any]] = {}

    def parse(self, item: object, source: str, number: int, unit: str = "line") -> Line | BadLine:
        """A Line, or a BadLine that says why not; never raises for what `item` holds."""
        if type(item) is dict and self.template is None and item.keys() <= _PLAIN_KEYS:
            prompt, custom_id = item.get("prompt"), item.get("custom_id")
            if is_plain(prompt, self._max_prompt_bytes) and (
                custom_id is None or is_plain(custom_id, MAX_CUSTOM_ID)
            ):
                return Line(source, number, {"prompt": prompt}, custom_id)
        try:
            if isinstance(item, Mapping):
                return self._mapping(item, source, number)
            if isinstance(item, str):
                return Line(source, number, {"prompt": self._text(item)})
            if isinstance(item, Flaw):
                raise Refusal(item.reason)
            raise Refusal(f"this is {kind(item)}: a request is text or an object")
        except Refusal as refusal:
            return BadLine(source, number, refusal.reason, _usable_id(item), unit)

    def _mapping(self, item: Mapping[str, Any], source: str, number: int) -> Line:
        custom_id = check_custom_id(item.get("custom_id"))
        if self.template is not None:
            prompt = check_prompt(self.template.render(item), self._max_prompt_bytes)
            return Line(source, number, {"prompt": prompt}, custom_id)
        if openai_batch.is_line(item):
            endpoint, body = openai_batch.unwrap(item)
            request = self._request(body)
            return Line(
                source, number, request, custom_id, check_model(body.get("model")), endpoint
            )
        request = self._request(item)
        return Line(source, number, request, custom_id, check_model(item.get("model")))

    def _text(self, text: str) -> str:
        if self.template is not None:
            text = self.template.render({TEXT_COLUMN: text})
        return check_prompt(text, self._max_prompt_bytes)

    def _request(self, item: Mapping[str, Any]) -> dict[str, Any]:
        params = self._params(_given(item))
        prompt, messages = item.get("prompt"), item.get("messages")
        if prompt is not None and messages is not None:
            raise Refusal("has both 'prompt' and 'messages': give one of them")
        request: dict[str, Any]
        if messages is not None:
            request = {"messages": check_messages(messages, self._max_prompt_bytes)}
        elif "prompt" in item:
            request = {"prompt": check_prompt(prompt, self._max_prompt_bytes)}
        else:
            raise Refusal("has neither 'prompt' nor 'messages': give one of them")
        if params:
            request["params"] = params
        return request

    def _params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The line's own parameters, validated together with the batch's."""
        if not given:
            return {}
        try:
            key = orjson.dumps(given)
        except TypeError:  # not JSON, so not valid either: `normalise` says what is wrong
            return self._validate(given)
        known = self._validated.get(key)
        if known is None:
            known = self._validate(given)
            if len(self._validated) < _REMEMBERED:
                self._validated[key] = known
        return dict(known)

    def _validate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            params = normalise(given, self._defaults)
        except ParameterError as error:
            raise Refusal(error.message) from None
        for text in params.get("stop", ()):
            check_text(text, "parameter 'stop'")
        return params


def _given(item: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a line: its extra keys, and those of its `params` object."""
    given = {key: value for key, value in item.items() if key not in REQUEST_KEYS}
    nested = item.get("params")
    if nested is not None:
        if not isinstance(nested, Mapping):
            raise Refusal(f"'params' is {kind(nested)}: it must be an object")
        for key, value in nested.items():
            if key in given:
                raise Refusal(f"parameter '{key}' is given twice, in 'params' too: keep one")
            given[key] = value
    for key in given:
        check_parameter_name(key)
    return given


def _usable_id(item: object) -> str | None:
    """The custom_id of an item that was refused, where that much of it is sound."""
    if not isinstance(item, Mapping):
        return None
    try:
        return check_custom_id(item.get("custom_id"))
    except Refusal:
        return None
