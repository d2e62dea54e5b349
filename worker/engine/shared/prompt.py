"""From a request to the token ids that the model sees, or the reason why there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import jinja2

from worker.engine.protocol import EmbedRequest, Failed, Request, ScoreRequest

#: What tokenizers raise for a text.
_UNREADABLE = (UnicodeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised prompt."""

    token_ids: list[int]
    #: What `echo` puts before the completion.
    text: str
    #: Whether the tokenizer put its special tokens around it; a template has its own.
    special: bool = True


class Prompter:
    """Tokenises prompts and renders chats, as transformers' text-generation pipeline does."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # A fast tokenizer must not be reconfigured by one thread while another encodes.
        self._lock = Lock()

    def prompt(self, request: Request | ScoreRequest | EmbedRequest) -> Prompt | Failed:
        """Failed for a chat without a template, a template's own error, or an empty prompt."""
        prompt: Prompt | Failed
        if not isinstance(request, EmbedRequest) and request.messages is not None:
            tools = request.tools if isinstance(request, Request) else None
            prompt = self._chat(request.messages, tools)
        else:
            prompt = self._plain(request.prompt or "")
        if isinstance(prompt, Prompt) and not prompt.token_ids:
            return Failed("empty_prompt", "the prompt has no tokens: write at least one word")
        return prompt

    def completion(self, prompt: Prompt, text: str, *, joined: bool) -> list[int] | Failed:
        """The tokens of a given completion.

        `joined`: as they follow the prompt in one text. Where that would change the prompt's own
        tokens, as in the middle of a word, and where it is not joined: of the completion alone.
        """
        try:
            if joined:
                whole = self._ids(prompt.text + text, special=prompt.special)
                length = len(prompt.token_ids)
                if whole[:length] == prompt.token_ids and len(whole) > length:
                    return whole[length:]
            return self._ids(text, special=False)
        except _UNREADABLE as error:
            return Failed("bad_prompt", f"the tokenizer can't read the completion: {_line(error)}")

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated tokens, special tokens left out."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token_text(self, token_id: int) -> str:
        """One token as text, special tokens included."""
        return str(self._tokenizer.decode([token_id]))

    def _plain(self, text: str) -> Prompt | Failed:
        try:
            return Prompt(self._ids(text, special=True), text)
        except _UNREADABLE as error:
            return Failed("bad_prompt", f"the tokenizer can't read the prompt: {_line(error)}")

    def _ids(self, text: str, *, special: bool) -> list[int]:
        with self._lock:
            return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def _chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> Prompt | Failed:
        template = getattr(self._tokenizer, "chat_template", None)
        if not template:
            return Failed(
                "no_chat_template",
                "the model's tokenizer has no chat template, so it takes no messages: "
                "give a prompt, or use an instruction-tuned model",
            )
        if tools and "tools" not in str(template):
            return Failed(
                "bad_chat",
                "the model's chat template shows no tools: leave them out, or use a "
                "model that was trained to call them",
            )
        # An answer that is begun is continued, as the pipeline does.
        begun = bool(messages) and messages[-1].get("role") == "assistant"
        try:
            with self._lock:
                text = self._tokenizer.apply_chat_template(
                    [_with_arguments(message) for message in messages],
                    tools=[dict(tool) for tool in tools] if tools else None,
                    add_generation_prompt=not begun,
                    continue_final_message=begun,
                    tokenize=False,
                )
                ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        except (jinja2.TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
            return Failed("bad_chat", f"the chat template refuses the messages: {_line(error)}")
        return Prompt(list(ids), str(text), special=False)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _with_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with the arguments of its calls as objects: templates write them as JSON."""
    plain = dict(message)
    if plain.get("tool_calls"):
        plain["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _object(call["function"])}}
            for call in plain["tool_calls"]
        ]
    return plain


def _object(function: Mapping[str, Any]) -> Any:
    given = function.get("arguments")
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        return given
