"""From a request to the HTTP call that asks for it, or why the endpoint can't be asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.chat import turns
from worker.engine.openai_api.settings import Dialect
from worker.engine.parameters import refusal
from worker.engine.protocol import Failed, Request
from worker.engine.structures import for_vllm

#: Stop strings that every endpoint takes; the others are looked for in the text that comes.
_STOPS = 4

#: Google's seeds are no longer; one width for all, so that a batch means the same everywhere.
_SEEDS = 2**31

#: Bytes of text per token, at the low end: a prompt's tokens are guessed before they are known.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One POST."""

    #: `/chat/completions`; else `/completions`.
    chat: bool
    #: Fields that the official client knows.
    fields: Mapping[str, Any]
    #: Fields of the endpoint's own.
    extra: Mapping[str, Any]
    #: Tokens that it may cost: a guess at the prompt, and all that it may generate.
    tokens: int


def refused(request: Request, api: str, dialect: Dialect) -> Failed | None:
    """Why the endpoint can't do what was asked for; None: it can be asked."""
    params = request.params
    failure = refusal("openai", params, option=f"extensions={dialect}")
    if failure is not None:
        return failure
    if params.seed is not None and dialect is Dialect.GOOGLE:
        return Failed("unsupported_parameter", "Google's endpoint takes no seed: leave it out")
    chat = api == "chat" or request.messages is not None
    if params.response_format is not None and not chat and dialect is not Dialect.VLLM:
        return Failed(
            "unsupported_parameter",
            "the endpoint takes response_format for chats only: give messages, or set the engine "
            "option api=chat",
        )
    if request.messages is not None:
        if api == "completions":
            return Failed(
                "bad_chat", "a chat, and the engine option api=completions takes prompts only"
            )
        if not request.messages:
            return Failed("bad_chat", "the chat has no messages")
        if params.echo:
            return Failed(
                "unsupported_parameter",
                "engine 'openai' can't honour echo for a chat: only the endpoint knows how it "
                "is rendered",
            )
    elif request.prompt_ids is not None:
        return _refused_ids(request, chat)
    elif not request.prompt:
        return Failed("empty_prompt", "the prompt has no tokens: write at least one word")
    return None


def _refused_ids(request: Request, chat: bool) -> Failed | None:
    if request.params.echo:
        return Failed(
            "unsupported_parameter",
            "engine 'openai' can't honour echo for token ids: only the endpoint knows their text",
        )
    if chat:
        return Failed(
            "bad_prompt",
            "a prompt of token ids, and the engine option api=chat takes texts only: give the text",
        )
    return None


def call_for(request: Request, model: str, api: str, dialect: Dialect, got: int = 0) -> Call:
    """Ask for the samples from number `got` on, of a request that is not `refused`."""
    params = request.params
    chat = api == "chat" or request.messages is not None
    limit = params.token_limit(0, None)
    fields: dict[str, Any] = {"model": model}
    if chat:
        messages = request.messages or [{"role": "user", "content": request.prompt}]
        fields["messages"] = [dict(message) for message in messages]
        fields |= _tools(request)
        # The newer name is OpenAI's own, and the only one that its reasoning models take.
        newer = dialect is Dialect.OPENAI
        fields["max_completion_tokens" if newer else "max_tokens"] = limit
    else:
        fields["prompt"] = (
            request.prompt if request.prompt_ids is None else list(request.prompt_ids)
        )
        fields["max_tokens"] = limit
    fields |= _sampling(request, dialect, got)
    if params.wants_logprobs:
        fields |= _logprobs(chat, params.alternatives)
    if params.response_format is not None and dialect is not Dialect.VLLM:
        fields["response_format"] = params.response_format
    extra = _extra(request) if dialect is Dialect.VLLM else {}
    return Call(chat, fields, extra, _size(request) + limit * fields.get("n", 1))


def _sampling(request: Request, dialect: Dialect, got: int) -> dict[str, Any]:
    """OpenAI's defaults are ours, and some of its models refuse to be told them. Elsewhere a
    model may have defaults of its own, so they are told.
    """
    params = request.params
    fields: dict[str, Any] = {}
    for name in ("temperature", "top_p"):
        value = getattr(params, name)
        if value != 1.0 or dialect is not Dialect.OPENAI:
            fields[name] = value
    # vLLM refuses several greedy samples at once.
    if params.n - got > 1 and not (params.greedy and dialect is Dialect.VLLM):
        fields["n"] = params.n - got
    if params.stop:
        fields["stop"] = list(params.stop[:_STOPS])
    if dialect is not Dialect.GOOGLE:
        fields["seed"] = (request.seed + got) % _SEEDS
    return fields


def _tools(request: Request) -> dict[str, Any]:
    params = request.params
    if not request.tools:
        return {}
    fields: dict[str, Any] = {"tools": [dict(tool) for tool in request.tools]}
    for name in ("tool_choice", "parallel_tool_calls"):
        value = getattr(params, name)
        if value is not None:
            fields[name] = value
    return fields


def _logprobs(chat: bool, alternatives: int) -> dict[str, Any]:
    if not chat:
        return {"logprobs": alternatives}
    return {"logprobs": True, "top_logprobs": alternatives}


def _extra(request: Request) -> dict[str, Any]:
    """vLLM's own fields, all of them told: its defaults come from the model's files."""
    params = request.params
    extra: dict[str, Any] = {
        "top_k": params.top_k if params.top_k > 0 else -1,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        # Past the end of a structure vLLM would go on without one.
        "ignore_eos": params.ignore_eos and params.structure is None,
    }
    wanted = params.structure
    if wanted is not None:
        extra["structured_outputs"] = for_vllm(wanted)
    if params.add_special_tokens is not None:
        extra["add_special_tokens"] = params.add_special_tokens
    if params.stop_token_ids:
        extra["stop_token_ids"] = list(params.stop_token_ids)
    if request.messages:
        extra |= _turns(request, request.messages[-1].get("role") == "assistant")
    return extra


def _turns(request: Request, begun: bool) -> dict[str, Any]:
    """How the chat is rendered, where that is not vLLM's default."""
    params = request.params
    extra: dict[str, Any] = {}
    if params.chat_template_kwargs:
        extra["chat_template_kwargs"] = params.chat_template_kwargs
    continued, opened = turns(
        params.continue_final_message, params.add_generation_prompt, begun=begun
    )
    if continued or not opened:
        extra |= {"continue_final_message": continued, "add_generation_prompt": opened}
    return extra


def _size(request: Request) -> int:
    if request.prompt_ids is not None:
        return len(request.prompt_ids)
    text = request.prompt if request.messages is None else str(list(request.messages))
    return len((text or "").encode("utf-8", "replace")) // _BYTES_PER_TOKEN + 1
