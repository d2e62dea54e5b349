"""Generation parameters: their names, ranges and defaults, in one place.

Producers validate with it at submit, workers read with it at claim. A batch has defaults; a
line overrides them one by one. Nothing that asks for something is ever ignored: an unknown name is
an error that offers the valid one, and another system's parameter (`db.foreign_names`) is accepted
with a value that changes nothing. The other modes' parameters (`db.modes`) go the same way.
"""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Self, overload

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from db.adapters import AdapterName
from db.chat import check_template_kwargs, check_tool_choice, check_turns, must_call
from db.errors import ParameterError
from db.foreign_names import advice, is_neutral, translation
from db.misspellings import near_miss
from db.modes import EmbedParams, Mode, ScoreParams
from db.numbers import LARGEST_COUNT, Number, Whole
from db.structure import Structure, compiled, structure
from db.validity import checker

#: Other people's names for our parameters.
ALIASES: dict[str, str] = {
    "max_new_tokens": "max_tokens",  # transformers
    "max_completion_tokens": "max_tokens",  # OpenAI chat
    "num_return_sequences": "n",  # transformers
}

#: What a completion is cut at when nobody says (tokens).
DEFAULT_MAX_TOKENS = 128

StopString = Annotated[str, Field(min_length=1, max_length=1000)]
ChoiceText = Annotated[str, Field(min_length=1, max_length=10_000)]
TokenId = Annotated[Whole, Field(ge=0, le=LARGEST_COUNT, strict=True)]


#: Validation context of a batch's defaults: what a line may still complete is not asked yet.
_DEFAULTS = {"defaults": True}

#: How other servers are asked for the log-likelihood of a text, with `echo` and `logprobs`.
_NOTHING_NEW = (
    "parameter 'max_tokens' is 0, which generates nothing: to have the log-probabilities of a text "
    'itself, submit {"text": ..., "logprobs": 1} with --mode score'
)

_LISTS = (("stop", "strings"), ("stop_token_ids", "whole numbers"), ("choice", "strings"))


class SamplingParams(BaseModel):
    """How one prompt is continued. Every field has a meaning on every default engine."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: New tokens at most, per sample. None: `max_length` decides, else 128.
    max_tokens: Annotated[Whole, Field(ge=1, le=LARGEST_COUNT)] | None = None
    #: Prompt and new tokens together at most, as in transformers' pipeline.
    max_length: Annotated[Whole, Field(ge=1, le=LARGEST_COUNT)] | None = None
    #: 0 is greedy: always the likeliest token.
    temperature: Annotated[Number, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    #: Sample from the smallest set of tokens with this much probability together.
    top_p: Annotated[Number, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    #: Sample from this many likeliest tokens; 0 or -1: from all.
    top_k: Annotated[Whole, Field(ge=-1, le=LARGEST_COUNT)] = 0
    #: Drop tokens less likely than this share of the likeliest one.
    min_p: Annotated[Number, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    #: Samples per prompt.
    n: Annotated[Whole, Field(ge=1, le=128)] = 1
    #: The completion ends before the first of these strings, and does not contain it.
    stop: Annotated[tuple[StopString, ...], Field(max_length=16)] = ()
    #: The completion ends at any of these tokens, besides the model's own end token.
    stop_token_ids: Annotated[tuple[TokenId, ...], Field(max_length=256)] = ()
    #: Same seed, same samples. None: derived from the job's id, so that a retry repeats it.
    seed: Annotated[Whole, Field(ge=0, le=2**63 - 1)] | None = None
    #: Return each token's log-probability; a number asks for that many alternatives too.
    logprobs: bool | Annotated[Whole, Field(ge=0, le=20)] = False
    #: Alternatives per token, in OpenAI's chat spelling; needs `logprobs`.
    top_logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    #: Above 1 makes tokens that already stand in prompt or text less likely.
    repetition_penalty: Annotated[Number, Field(gt=0, le=100, allow_inf_nan=False)] = 1.0
    #: Go on past the model's end token, up to the length limit.
    ignore_eos: bool = False
    #: Put the prompt before the completion in the text.
    echo: bool = False
    #: Put the tokenizer's special tokens, such as BOS, around the prompt. None: around a prompt
    #: yes, around a chat no, whose template writes its own.
    add_special_tokens: bool | None = None
    #: What the text must be, in OpenAI's form: `{"type": "json_object"}`, or `json_schema` with a
    #: schema. This and the next three exclude each other; see `structure`.
    response_format: dict[str, Any] | None = None
    #: The whole text matches this regular expression (the syntax of Rust's `regex`).
    regex: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    #: The text is one of these.
    choice: Annotated[tuple[ChoiceText, ...], Field(min_length=1, max_length=10_000)] | None = None
    #: The text follows this grammar, in Lark's notation or llama.cpp's GBNF.
    grammar: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = None
    #: Of a chat with tools: `none`, `auto`, `required`, or the function that must be called.
    tool_choice: str | dict[str, Any] | None = None
    #: False: one call at most.
    parallel_tool_calls: bool | None = None
    #: What a chat's template is given besides the messages, such as `enable_thinking`.
    chat_template_kwargs: dict[str, Any] | None = None
    #: Begin the answer's turn. None: unless the last message is continued.
    add_generation_prompt: bool | None = None
    #: Go on with the last message. None: if it is the assistant's.
    continue_final_message: bool | None = None
    #: Ask again where a text was cut at its limit, with twice the limit each time, up to this.
    retry_max_tokens: Annotated[Whole, Field(ge=2, le=LARGEST_COUNT)] | None = None
    #: Ask again, so many times at most and each with a new seed, where a text breaks its structure.
    retry_invalid: Annotated[Whole, Field(ge=1, le=10)] | None = None
    #: The LoRA adapter, by its name, that the model works with.
    adapter: AdapterName = None

    @model_validator(mode="before")
    @classmethod
    def _spellings(cls, values: Any) -> Any:
        """Accept a lone stop string, an empty one as none, and lists for tuples, as in JSON."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        if isinstance(values.get("stop"), str):
            values["stop"] = (values["stop"],) if values["stop"] else ()
        for name, members in _LISTS:
            value = values.get(name)
            if value is None:
                continue
            if isinstance(value, list):
                values[name] = tuple(value)
            elif not isinstance(value, tuple):
                raise ValueError(f"parameter '{name}' is a list of {members}, not {_shown(value)}")
        return values

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        if self.max_tokens is not None and self.max_length is not None:
            raise ValueError("give max_tokens or max_length, not both")
        if self.top_logprobs and not self.wants_logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        check_tool_choice(self.tool_choice)
        check_template_kwargs(self.chat_template_kwargs)
        check_turns(self.continue_final_message, self.add_generation_prompt)
        wanted = self.structure
        if wanted is not None:
            if must_call(self.tool_choice):
                raise ValueError(
                    "tool_choice asks for a call of a function: it can't have a structure "
                    "(response_format, regex, choice, grammar) as well"
                )
            compiled(wanted)
        if self.retry_invalid is not None and wanted is not None:
            checker(wanted)
        if info.context != _DEFAULTS:
            self._check_retries()
        return self

    def _check_retries(self) -> None:
        """What of it a line decides. Raises ValueError."""
        bound, limit = self.retry_max_tokens, self.max_tokens or DEFAULT_MAX_TOKENS
        if bound is not None and self.max_length is not None:
            raise ValueError("retry_max_tokens goes with max_tokens: leave max_length out")
        if bound is not None and bound <= limit:
            raise ValueError(
                f"retry_max_tokens ({bound}) is not above max_tokens ({limit}"
                f"{'' if self.max_tokens else ' where it is not given'}): raise it, or give less"
            )
        if self.retry_invalid is not None and self.structure is None:
            raise ValueError(
                "retry_invalid needs a structure: give response_format, regex, choice or grammar"
            )
        if self.retry_invalid is not None and self.echo:
            raise ValueError(
                "give retry_invalid or echo, not both: with the prompt before it, no text is of "
                "its structure"
            )

    @property
    def structure(self) -> Structure | None:
        """What the text must look like; None: anything."""
        return structure(self.response_format, self.regex, self.choice, self.grammar)

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not False

    @property
    def alternatives(self) -> int:
        """How many likeliest tokens to report at each position."""
        if self.top_logprobs is not None:
            return self.top_logprobs
        return 0 if isinstance(self.logprobs, bool) else self.logprobs

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def token_limit(self, prompt_tokens: int, context_length: int | None) -> int:
        """New tokens that this prompt may get, at most; below 1: there is no room.

        `prompt_tokens` and `context_length` are in tokens; None means an unbounded context.
        """
        if self.max_length is not None:
            limit = self.max_length - prompt_tokens
        else:
            limit = self.max_tokens if self.max_tokens is not None else DEFAULT_MAX_TOKENS
        return limit if context_length is None else min(limit, context_length - prompt_tokens)


#: The parameters of a request, of whichever mode.
Params = SamplingParams | ScoreParams | EmbedParams

MODELS: dict[Mode, type[Params]] = {
    Mode.GENERATE: SamplingParams,
    Mode.SCORE: ScoreParams,
    Mode.EMBED: EmbedParams,
}


def parameter_names(mode: Mode = Mode.GENERATE) -> list[str]:
    """Every name that a caller may use, aliases included."""
    return sorted([*MODELS[mode].model_fields, *_aliases(mode)])


def normalise(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    mode: Mode = Mode.GENERATE,
) -> dict[str, Any]:
    """The given overrides under their own names, validated together with `defaults`.

    Only what was given is returned, so that overrides can be merged; null means "not given", as
    does another system's parameter with a value that changes nothing.
    `defaults` of None: these are a batch's own, which lines may still complete.
    Raises ParameterError, naming the parameter, what is wrong, and for an unknown one the
    valid name; several faults in one message.
    """
    renamed: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in given.items():
        own = _aliases(mode).get(name, name)
        if own not in MODELS[mode].model_fields:
            if not is_neutral(name, value, {**(defaults or {}), **given}):
                faults.append(_unknown(name, value, mode))
        elif value is not None and renamed.get(own, value) != value:
            faults.append(
                f"parameter '{name}' is given twice, with different values ('{own}' is the same "
                "one): keep one"
            )
        elif own == "max_tokens" and value is not False and value == 0:
            faults.append(_NOTHING_NEW)
        elif value is not None:
            renamed[own] = value
    params = None
    if renamed:
        values = _merged(defaults or {}, renamed)
        context = _DEFAULTS if defaults is None else None
        try:
            params = MODELS[mode].model_validate(values, context=context)
        except ValidationError as error:
            faults += _described(error)
    if faults:
        raise ParameterError(*faults)
    return {} if params is None else _plain(params.model_dump(include=set(renamed)))


@overload
def merge(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> SamplingParams: ...


@overload
def merge(defaults: Mapping[str, Any], overrides: Mapping[str, Any], mode: Mode) -> Params: ...


def merge(
    defaults: Mapping[str, Any], overrides: Mapping[str, Any], mode: Mode = Mode.GENERATE
) -> Params:
    """Batch defaults under a line's overrides; both as `normalise` returned them."""
    return _validate(_merged(defaults, overrides), mode)


def in_force(params: Params) -> dict[str, Any]:
    """What a result was made with: each parameter that has a value, defaults included.

    Without the seed, which a job may also have from `seed_of`.
    """
    given = _plain(params.model_dump(exclude={"seed"}, exclude_none=True))
    if not isinstance(params, SamplingParams):
        return given
    unlimited = params.max_tokens is None and params.max_length is None
    return {"max_tokens": DEFAULT_MAX_TOKENS, **given} if unlimited else given


def seed_of(batch_uid: str, line: int) -> int:
    """The seed of a job that has none of its own: the same on every attempt and every worker."""
    digest = hashlib.blake2b(f"{batch_uid}-{line}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_of_try(seed: int, number: int) -> int:
    """The seed of a job's new try number 1, 2, …, made of its first one; 0 is that one itself."""
    if number == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_of_prompt(seed: int, number: int) -> int:
    """The seed of prompt number 1, 2, … of a job's list, made of the job's; 0 has that one."""
    if number == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A line's `max_tokens` replaces a batch's `max_length`, and the other way round."""
    merged = {**defaults, **overrides}
    for one, other in (("max_tokens", "max_length"), ("max_length", "max_tokens")):
        if one in overrides and other not in overrides:
            merged.pop(other, None)
    return merged


def _aliases(mode: Mode) -> Mapping[str, str]:
    return ALIASES if mode is Mode.GENERATE else {}


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """As JSON has them. (pydantic's own way to JSON changes the digits of numbers.)"""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in params.items()
    }


def _validate(values: Mapping[str, Any], mode: Mode) -> Params:
    try:
        return MODELS[mode].model_validate(values)
    except ValidationError as error:
        raise ParameterError(*_described(error)) from None


def _described(error: ValidationError) -> list[str]:
    """What is wrong, a parameter each."""
    faults: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        # Of a parameter that takes several types, the fault of the type that was given says most.
        if name not in faults or not str(detail["type"]).endswith("_type"):
            faults[name] = _fault(name, str(detail["msg"]), detail["input"])
    return list(faults.values())


def _fault(name: str, message: str, value: object) -> str:
    reason = message.removeprefix("Value error, ")
    if not name:
        return reason
    return f"parameter '{name}': {reason[:1].lower()}{reason[1:]}, not {_shown(value)}"


def _shown(value: object) -> str:
    """The value, short enough for a message."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number that long"  # Python refuses to print some of them
    return reprlib.repr(value)


def _unknown(name: str, value: object, mode: Mode) -> str:
    refused = advice(name, value)
    if refused is not None:
        return refused
    known = parameter_names(mode)
    own = translation(name)
    near = own if own in known else near_miss(name, known)
    hint = f"did you mean '{near}'?" if near else "known: " + ", ".join(known)
    where = "" if mode is Mode.GENERATE else f" in mode {mode}"
    return f"unknown parameter '{name}'{where}: {hint}"
