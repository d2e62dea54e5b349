"""A tokenizer's chat template, rendered under a clock that stands still.

A template may ask for the date (`strftime_now`). What it gets is the request's clock in UTC, so
that a chat is rendered alike on every machine, in every time zone, and when it is replayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from jinja2 import meta
from transformers.utils.chat_template_utils import _compile_jinja_template

from worker.engine.shared.written_numbers import StandIns

#: The time that a template sees now; None: the present.
_CLOCK: ContextVar[datetime | None] = ContextVar("chat_template_clock", default=None)


class TemplateRefusal(Exception):
    """A template raised; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Chat:
    """What a template is given."""

    messages: Sequence[Mapping[str, Any]]
    #: Functions that the answer may call.
    tools: Sequence[Mapping[str, Any]] | None = None
    #: Further variables: a request's `chat_template_kwargs`.
    variables: Mapping[str, Any] | None = None
    #: The answer's turn is begun after the messages.
    generation_prompt: bool = False


class ChatTemplate:
    """The chat template of one tokenizer, which may have another one for chats with tools."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def source(self, *, tools: bool) -> str | None:
        """The template's Jinja text, for chats with or without tools; None: there is none."""
        template = getattr(self._tokenizer, "chat_template", None)
        if isinstance(template, Mapping):
            template = (template.get("tool_use") if tools else None) or template.get("default")
        return str(template) if template else None

    def sources(self) -> str:
        """The text of all its templates, in one."""
        template = getattr(self._tokenizer, "chat_template", None)
        if isinstance(template, Mapping):
            return "\n".join(map(str, template.values()))
        return str(template or "")

    def render(self, chat: Chat, clock: float | None = None) -> str:
        """The chat as text; `clock` is the time that the template sees (unix seconds).

        Raises TemplateRefusal for whatever a template raises.
        """
        source = self.source(tools=bool(chat.tools))
        numbers = StandIns(source or "", chat.messages, chat.tools, chat.variables)
        try:
            with _standing(clock):
                if source is not None:
                    _compiled(source)
                text = self._tokenizer.apply_chat_template(
                    [dict(numbers.put(message)) for message in chat.messages],
                    tools=None
                    if chat.tools is None
                    else [dict(numbers.put(tool)) for tool in chat.tools],
                    tokenize=False,
                    add_generation_prompt=chat.generation_prompt,
                    **numbers.put(chat.variables or {}),
                )
        except Exception as error:
            # A template is a program of somebody else's: it may raise anything.
            raise TemplateRefusal(_line(error)) from error
        return numbers.restored(str(text))


@lru_cache(maxsize=16)
def variables_of(source: str) -> frozenset[str]:
    """The variables that a template reads and may be given. Raises TemplateRefusal."""
    try:
        syntax = _compiled(source).environment.parse(source)
        return frozenset(meta.find_undeclared_variables(syntax))
    except Exception as error:
        raise TemplateRefusal(_line(error)) from error


def _compiled(source: str) -> Any:
    """transformers' compiled template, which it keeps; `strftime_now` reads our clock."""
    compiled = _compile_jinja_template(source)
    compiled.globals["strftime_now"] = _strftime_now
    return compiled


def _strftime_now(pattern: str) -> str:
    return (_CLOCK.get() or datetime.now(UTC)).strftime(pattern)


@contextmanager
def _standing(clock: float | None) -> Iterator[None]:
    token = _CLOCK.set(None if clock is None else datetime.fromtimestamp(clock, UTC))
    try:
        yield
    finally:
        _CLOCK.reset(token)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
