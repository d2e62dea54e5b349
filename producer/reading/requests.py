"""One decoded item becomes one request: which of the four forms it has, and whether it is valid.

    "text"                                            a prompt
    {"prompt": "text", <parameters>}                  a completion (or token ids, or a list)
    {"messages": [...], <parameters>}                 a chat
    {"custom_id", "method", "url", "body": {...}}     a line of an OpenAI batch file

Under a template every object is a row of data instead, and a bare text is the row
`{"text": ...}`. To be scored or embedded, the first two forms may say `text` for `prompt`; to be
scored, the second and third may have a `completion`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from db.errors import ParameterError
from db.exact_json import dumps
from db.foreign_names import advice, is_neutral, translation
from db.modes import Mode
from db.sampling import merge, normalise
from producer.input_columns.cells import BadCell
from producer.input_columns.header import Header, InputRow
from producer.reading import openai_batch
from producer.reading.chat import check_messages
from producer.reading.chat_params import (
    asking,
    chat_params,
    check_chat_params,
    drop_idle_choice,
    refuse_for_prompt,
)
from producer.reading.columns import TableRules
from producer.reading.data_keys import or_data
from producer.reading.keys import NAMES, Names, check_parameter_name
from producer.reading.lines import BadLine, Flaw, Line, TableRow
from producer.reading.prompts import check_samples, stored_prompt
from producer.reading.row_prompt import RowPrompt
from producer.reading.splitting import Splitter
from producer.reading.template import TEXT_COLUMN
from producer.reading.texts import (
    MAX_CUSTOM_ID,
    LineFaults,
    Refusal,
    check_completion,
    check_custom_id,
    check_model,
    check_prompt,
    check_text,
    is_plain,
    kind,
    shown,
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
        template: RowPrompt | None,
        defaults: Mapping[str, Any] | None,
        max_prompt_bytes: int,
        mode: Mode = Mode.GENERATE,
        *,
        header: Header | None = None,
        columns: Collection[str] = (),
    ) -> None:
        """`columns`: keys that are data, whatever they are called; `header` gets all data's."""
        self.template = template
        self.names = NAMES[mode]
        self.rules = TableRules(template, self.names, columns)
        self._splitter = Splitter(self.names, columns, by_template=template is not None)
        self._header = Header(max_prompt_bytes) if header is None else header
        self._defaults = dict(defaults or {})
        #: Of the batch, what only a chat can have.
        self._chat_defaults = chat_params(self._defaults)
        #: Of these, what a prompt is refused for.
        self._prompt_defaults = asking({}, self._chat_defaults)
        self._max_prompt_bytes = max_prompt_bytes
        self._validated: dict[bytes, dict[str, Any]] = {}
        #: Why a line without parameters of its own can't have the batch's; None: it can.
        self._unfit = _unfit(self._defaults, mode)
        #: A prompt alone needs no second look.
        self._is_simple = template is None and self._unfit is None and not self._prompt_defaults

    def parse(self, item: object, source: str, number: int, unit: str = "line") -> Line | BadLine:
        """A Line, or a BadLine that says why not; never raises for what `item` holds."""
        if type(item) is dict and self._is_simple and item.keys() <= _PLAIN_KEYS:
            prompt, custom_id = item.get("prompt"), item.get("custom_id")
            if is_plain(prompt, self._max_prompt_bytes) and (
                custom_id is None or is_plain(custom_id, MAX_CUSTOM_ID)
            ):
                return Line(source, number, {"prompt": prompt}, custom_id)
        columns = None
        if isinstance(item, Flaw):
            return self._bad_row(item, source, number, unit)
        try:
            item, row = self._splitter.split(item)
            if row is not None:
                columns = self._encoded(row)
            if row is not None and self.template is None:
                _check_any(item, row, self.names.needed)
            line = self._line(item, source, number)
            if self._unfit is not None and "params" not in line.request:
                raise Refusal(self._unfit)
            return line if columns is None else line._replace(columns=columns)
        except Refusal as refusal:
            return BadLine(source, number, refusal.reason, _usable_id(item), unit, columns)

    def _bad_row(self, flaw: Flaw, source: str, number: int, unit: str) -> BadLine:
        """A BadLine with what of it could be read."""
        if flaw.row is None:
            return BadLine(source, number, flaw.reason, None, unit)
        try:
            columns = self._encoded(flaw.row.columns)
        except Refusal:
            columns = None
        return BadLine(source, number, flaw.reason, _usable_id(flaw.row.request), unit, columns)

    def _encoded(self, row: InputRow) -> str | None:
        try:
            return self._header.encoded(row) if row.values else None
        except BadCell as bad:
            raise Refusal(str(bad)) from None

    def _line(self, item: object, source: str, number: int) -> Line:
        if isinstance(item, Mapping):
            return self._mapping(item, source, number)
        if isinstance(item, str):
            return Line(source, number, self._of_text(item))
        raise Refusal(f"this is {kind(item)}: a request is text or an object")

    def _mapping(self, item: Mapping[str, Any], source: str, number: int) -> Line:
        faults = LineFaults()
        custom_id = faults.of(check_custom_id, item.get("custom_id"))
        if self.template is not None:
            request = faults.of(self._of_row, self.template, item)
            faults.raise_all()
            return Line(source, number, request or {}, custom_id)
        endpoint, body = None, item
        if openai_batch.is_line(item):
            unwrapped = faults.of(openai_batch.unwrap, item, self.names.mode)
            if unwrapped is None:
                faults.raise_all()
            endpoint, body = unwrapped or (None, {})
        request = faults.of(self._request, body)
        model = faults.of(check_model, body.get("model"))
        faults.raise_all()
        if request and endpoint == openai_batch.RESPONSES:
            request["endpoint"] = endpoint  # whose answers have a shape of their own
        return Line(source, number, request or {}, custom_id, model, endpoint)

    def _of_row(self, template: RowPrompt, row: Mapping[str, Any]) -> dict[str, Any]:
        """The request that the template makes."""
        request = template.request(row, self._max_prompt_bytes)
        check_chat_params(request, self._chat_defaults)
        return request

    def _of_text(self, text: str) -> dict[str, Any]:
        if self.template is not None:
            return self._of_row(self.template, {TEXT_COLUMN: text})
        refuse_for_prompt(self._prompt_defaults)
        return {"prompt": check_prompt(text, self._max_prompt_bytes)}

    def _request(self, item: Mapping[str, Any]) -> dict[str, Any]:
        faults = LineFaults()
        params = faults.of(self._params, item) or {}
        request = faults.of(self._asked, item) or {}
        tools = item.get("tools")
        if tools is not None and tools != [] and faults.passes(_check_chat, item):
            request["tools"] = faults.of(check_tools, tools, self._max_prompt_bytes)
        if (completion := item.get("completion")) is not None:
            request["completion"] = faults.of(check_completion, completion, self._max_prompt_bytes)
        faults.raise_all()
        drop_idle_choice(request, params, self._chat_defaults)
        self._check_together(request, params)
        if params:
            request["params"] = params
        return request

    def _check_together(self, request: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Refusal where parts that are right by themselves don't go together."""
        scored = self.names.mode is Mode.SCORE
        if scored and "messages" in request and "completion" not in request:
            raise Refusal("is a chat without a 'completion': give the answer that is to be scored")
        if "prompts" in request and "completion" in request:
            raise Refusal("has a 'completion' and several prompts: give each its own line")
        check_samples(request, params.get("n") or self._defaults.get("n") or 1)
        check_chat_params(request, {**self._chat_defaults, **chat_params(params)})

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
        return stored_prompt(item[there[0] if there else key], self._max_prompt_bytes)

    def _params(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The line's own parameters, validated together with the batch's."""
        faults = LineFaults()
        given = _given(item, self.names, faults)
        params = faults.of(self._known_or_validated, given)
        faults.raise_all()
        return params or {}

    def _known_or_validated(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if not given:
            return {}
        try:
            key = dumps(given)
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
            raise Refusal(*error.faults) from None
        for text in params.get("stop", ()):
            check_text(text, "parameter 'stop'")
        return params


def _unfit(defaults: Mapping[str, Any], mode: Mode) -> str | None:
    try:
        merge(defaults, {}, mode)
    except ParameterError as error:
        return error.message
    return None


def _check_chat(item: Mapping[str, Any]) -> None:
    if item.get("messages") is None:
        raise Refusal("has 'tools' and no 'messages': only a chat can call tools")


def _listed(keys: Sequence[str], between: str) -> str:
    return between.join(f"'{key}'" for key in keys)


def _lacks(needed: Sequence[str]) -> str:
    either, last = _listed(needed[:-1], ", "), f"'{needed[-1]}'"
    return f"has neither {either} nor {last}: give one of them"


def _given(item: Mapping[str, Any], names: Names, faults: LineFaults) -> dict[str, Any]:
    """The parameters of a line: its extra keys, and those of its `params` object.

    Without those whose names are wrong, which are among the faults.
    """
    beside = {key: value for key, value in item.items() if key not in names.request}
    given = {
        key: value
        for key, value in beside.items()
        if faults.passes(_check_key, key, value, names, beside)
    }
    if (nested := item.get("params")) is not None:
        for key, value in (faults.of(_params_object, nested) or {}).items():
            if key in beside:
                faults.add(f"parameter '{key}' is given twice, in 'params' too: keep one")
            elif faults.passes(check_parameter_name, key, value, names):
                given[key] = value
    return given


def _params_object(nested: object) -> Mapping[str, Any]:
    if not isinstance(nested, Mapping):
        raise Refusal(f"'params' is {kind(nested)}: it must be an object")
    return nested


def _check_key(key: object, value: object, names: Names, given: Mapping[str, Any]) -> None:
    """Refusal for a key beside the prompt that asks for something we don't have."""
    try:
        check_parameter_name(key, value, names)
        if key not in names.parameters and not is_neutral(key, value, given):
            raise Refusal(advice(str(key), value) or f"unknown key {shown(key)}: remove it")
    except Refusal as refusal:
        raise Refusal(or_data(refusal.reason, key)) from None


def _check_any(request: object, row: InputRow, needed: Sequence[str]) -> None:
    """Refusal where data is all that there is, with a hint at what may be meant."""
    if not isinstance(request, Mapping) or any(key in request for key in needed):
        return
    template = "make prompts of its keys, as in --template 'Translate: {text}'"
    for key in row.values:
        if (meant := translation(key)) in needed:
            raise Refusal(f"{_lacks(needed)}: did you mean '{meant}' by '{key}'? Or {template}")
    raise Refusal(f"{_lacks(needed)}, or {template}")


def _usable_id(item: object) -> str | None:
    """The custom_id of an item that was refused, where that much of it is sound."""
    if isinstance(item, TableRow):
        item = item.request
    if not isinstance(item, Mapping):
        return None
    try:
        return check_custom_id(item.get("custom_id"))
    except Refusal:
        return None
