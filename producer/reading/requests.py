"""One decoded item becomes one request: which of the four forms it has, and whether it is valid.

    "text"                                            a prompt
    {"prompt": "text", <parameters>}                  a completion
    {"messages": [...], <parameters>}                 a chat
    {"custom_id", "method", "url", "body": {...}}     a line of an OpenAI batch file

Under a template every object is a row of data instead, and a bare text is the row
`{"text": ...}`. To be scored or embedded, the first two forms may say `text` for `prompt`; to be
scored, the second and third may have a `completion`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from db.errors import ParameterError
from db.modes import Mode
from db.sampling import merge, normalise
from producer.reading import openai_batch
from producer.reading.chat import check_messages
from producer.reading.chat_params import (
    chat_params,
    check_chat_params,
    drop_idle_choice,
    refuse_for_prompt,
)
from producer.reading.keys import NAMES, Names, check_parameter_name
from producer.reading.lines import BadLine, Flaw, Line
from producer.reading.template import TEXT_COLUMN, Template
from producer.reading.texts import (
    MAX_CUSTOM_ID,
    Refusal,
    check_completion,
    check_custom_id,
    check_model,
    check_prompt,
    check_text,
    is_plain,
    kind,
)
from producer.reading.tools import check_tools

#: Of the commonest line: when no more than these are there, there is little to check.
_PLAIN_KEYS = frozenset(("prompt", "custom_id"))

#: Distinct sets of parameters whose validation is remembered: a file mostly repeats a few.
_REMEMBERED = 1024


class RequestParser:
    """Validates items under one batch's mode, template, default parameters and size limit."""

    def __init__(
        self,
        template: Template | None,
        defaults: Mapping[str, Any] | None,
        max_prompt_bytes: int,
        mode: Mode = Mode.GENERATE,
    ) -> None:
        self.template = template
        self.names = NAMES[mode]
        self._defaults = dict(defaults or {})
        #: Of the batch, what only a chat can have.
        self._chat_defaults = chat_params(self._defaults)
        self._max_prompt_bytes = max_prompt_bytes
        self._validated: dict[bytes, dict[str, Any]] = {}
        #: Why a line without parameters of its own can't have the batch's; None: it can.
        self._unfit = _unfit(self._defaults, mode)

    def parse(self, item: object, source: str, number: int, unit: str = "line") -> Line | BadLine:
        """A Line, or a BadLine that says why not; never raises for what `item` holds."""
        if type(item) is dict and self._is_simple and item.keys() <= _PLAIN_KEYS:
            prompt, custom_id = item.get("prompt"), item.get("custom_id")
            if is_plain(prompt, self._max_prompt_bytes) and (
                custom_id is None or is_plain(custom_id, MAX_CUSTOM_ID)
            ):
                return Line(source, number, {"prompt": prompt}, custom_id)
        try:
            line = self._line(item, source, number)
            if self._unfit is not None and "params" not in line.request:
                raise Refusal(self._unfit)
            return line
        except Refusal as refusal:
            return BadLine(source, number, refusal.reason, _usable_id(item), unit)

    @property
    def _is_simple(self) -> bool:
        """A prompt alone needs no second look."""
        return self.template is None and self._unfit is None and not self._chat_defaults

    def _line(self, item: object, source: str, number: int) -> Line:
        if isinstance(item, Mapping):
            return self._mapping(item, source, number)
        if isinstance(item, str):
            return Line(source, number, {"prompt": self._text(item)})
        if isinstance(item, Flaw):
            raise Refusal(item.reason)
        raise Refusal(f"this is {kind(item)}: a request is text or an object")

    def _mapping(self, item: Mapping[str, Any], source: str, number: int) -> Line:
        custom_id = check_custom_id(item.get("custom_id"))
        if self.template is not None:
            refuse_for_prompt(self._chat_defaults)
            prompt = check_prompt(self.template.render(item), self._max_prompt_bytes)
            return Line(source, number, {"prompt": prompt}, custom_id)
        if openai_batch.is_line(item):
            _check_openai(self.names)
            endpoint, body = openai_batch.unwrap(item)
            request = self._request(body)
            return Line(
                source, number, request, custom_id, check_model(body.get("model")), endpoint
            )
        request = self._request(item)
        return Line(source, number, request, custom_id, check_model(item.get("model")))

    def _text(self, text: str) -> str:
        refuse_for_prompt(self._chat_defaults)
        if self.template is not None:
            text = self.template.render({TEXT_COLUMN: text})
        return check_prompt(text, self._max_prompt_bytes)

    def _request(self, item: Mapping[str, Any]) -> dict[str, Any]:
        params = self._params(_given(item, self.names))
        request = self._asked(item)
        tools = item.get("tools")
        if tools is not None and tools != []:
            if "messages" not in request:
                raise Refusal("has 'tools' and no 'messages': only a chat can call tools")
            request["tools"] = check_tools(tools, self._max_prompt_bytes)
        completion = item.get("completion")
        if completion is not None:
            request["completion"] = check_completion(completion, self._max_prompt_bytes)
        elif "messages" in request and self.names.mode is Mode.SCORE:
            raise Refusal("is a chat without a 'completion': give the answer that is to be scored")
        drop_idle_choice(request, params, self._chat_defaults)
        check_chat_params(request, {**self._chat_defaults, **chat_params(params)})
        if params:
            request["params"] = params
        return request

    def _asked(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Its prompt or its messages."""
        there = [key for key in self.names.needed if item.get(key) is not None]
        if len(there) > 1:
            raise Refusal(f"has both {_listed(there, ' and ')}: give one of them")
        if there == ["messages"]:
            return {"messages": check_messages(item["messages"], self._max_prompt_bytes)}
        key = next((key for key in self.names.prompts if key in item), None)
        if key is None:
            raise Refusal(_lacks(self.names.needed))
        return {"prompt": check_prompt(item[there[0] if there else key], self._max_prompt_bytes)}

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
            params = normalise(given, self._defaults, self.names.mode)
        except ParameterError as error:
            raise Refusal(error.message) from None
        for text in params.get("stop", ()):
            check_text(text, "parameter 'stop'")
        return params


def _unfit(defaults: Mapping[str, Any], mode: Mode) -> str | None:
    try:
        merge(defaults, {}, mode)
    except ParameterError as error:
        return error.message
    return None


def _listed(keys: Sequence[str], between: str) -> str:
    return between.join(f"'{key}'" for key in keys)


def _lacks(needed: Sequence[str]) -> str:
    either, last = _listed(needed[:-1], ", "), f"'{needed[-1]}'"
    return f"has neither {either} nor {last}: give one of them"


def _check_openai(names: Names) -> None:
    if names.mode is not Mode.GENERATE:
        raise Refusal(
            f"is a line of an OpenAI batch file, which only mode generate takes: to {names.mode}, "
            'write {"prompt": ...}'
        )


def _given(item: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """The parameters of a line: its extra keys, and those of its `params` object."""
    given = {key: value for key, value in item.items() if key not in names.request}
    nested = item.get("params")
    if nested is not None:
        if not isinstance(nested, Mapping):
            raise Refusal(f"'params' is {kind(nested)}: it must be an object")
        for key, value in nested.items():
            if key in given:
                raise Refusal(f"parameter '{key}' is given twice, in 'params' too: keep one")
            given[key] = value
    for key, value in given.items():
        check_parameter_name(key, value, names)
    return given


def _usable_id(item: object) -> str | None:
    """The custom_id of an item that was refused, where that much of it is sound."""
    if not isinstance(item, Mapping):
        return None
    try:
        return check_custom_id(item.get("custom_id"))
    except Refusal:
        return None
