"""A chat's answer as a message: its thinking apart, its calls taken out, its text.

How one model marks these is read once, from its tokenizer and chat template. A checkpoint that
brings a `response_template` says it itself (`transformers.utils.chat_parsing`); for the others
there are tables of marks, in `thinking` and `tool_calls`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.chat import chosen_function, must_call
from worker.engine.protocol import Failed, Request
from worker.engine.shared import thinking, tool_calls
from worker.engine.shared.chat_template import ChatTemplate
from worker.engine.shared.detokenizer import Detokenizer, special_ids
from worker.engine.shared.thinking import Marks, Phases, Said
from worker.engine.stopping import cut_at_stop
from worker.engine.text_stream import continued

#: How others name the thinking of a message.
_REASONING = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, slots=True)
class Message:
    """What a sample says."""

    text: str
    finish_reason: str
    reasoning: str | None = None
    tool_calls: tuple[tool_calls.Call, ...] | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """Of a chat's prompt: what it has of the answer's own turn already."""

    text: str
    #: It is a message that was begun, and is continued.
    continued: bool
    #: The template's own words around the texts of the messages.
    frame: str = ""


class Reader:
    """Reads the answers of one model to chats."""

    def __init__(self, tokenizer: Any, encode: Callable[[str], list[int]]) -> None:
        """`encode` adds no special tokens."""
        self._tokenizer = tokenizer
        self._encode = encode
        template = ChatTemplate(tokenizer).sources()
        declared = getattr(tokenizer, "response_template", None)
        self._declared = declared if isinstance(declared, Mapping) else None
        self._added = _added(tokenizer)
        self.marks = _declared_marks(self._declared) or thinking.marks_of(template, self._added)
        self.format = tool_calls.format_of(template)
        special = special_ids(tokenizer)
        #: Marks that a decoder would leave out, and their ids.
        self._hidden = {
            mark: self._added[mark]
            for mark in _all_marks(self.marks, self.format)
            if self._added.get(mark) in special
        }
        self._plain = Detokenizer(tokenizer)
        #: Leaves the marks in the text.
        self._marked = Detokenizer(tokenizer, self._hidden.values())

    @property
    def reads_openings(self) -> bool:
        """Whether what a prompt has of the answer's turn decides how the answer is read."""
        return self.marks is not None or self._declared is not None

    def phases(self, opening: Opening | None, *, guided: bool) -> Phases | None:
        """Follows the thinking of an answer as it grows; None: it has none.

        `guided`: the answer has to be of a structure, so thinking must be told from it.
        """
        marks = self.marks
        if opening is None or marks is None:
            return None
        opened = thinking.is_opened(marks, opening.text, continued=opening.continued)
        over = opening.continued or marks.close in opening.text or marks == thinking.HARMONY
        # "Here is" is how many an answer begins: such a mark counts where the template asks for it.
        strange = guided and marks.open not in self._added and marks.open not in opening.frame
        if not opened and (over or strange):
            return None
        return Phases(marks, self._marked.decode, self._encode, opened=opened)

    def calls_grammar(self, request: Request) -> str | Failed | None:
        """What makes the answer a call, where the request insists on one; None: it does not."""
        tools = demanded(request)
        if tools is None:
            return None
        if self.format is None or self.format == tool_calls.QWEN_CODER:
            return Failed(
                "unsupported_parameter",
                "tool_choice: nothing here can hold an answer to the form in which the model's "
                "chat template writes calls: use tool_choice auto, or a model that writes them as "
                "Qwen, Hermes, Llama, Mistral or Granite do",
            )
        several = request.params.parallel_tool_calls is not False
        return tool_calls.grammar(self.format, tools, self._added.get, several=several)

    def message(
        self,
        request: Request,
        opening: Opening | None,
        token_ids: Sequence[int],
        finish_reason: str,
        index: int,
        context: Sequence[int] = (),
    ) -> Message:
        """What the tokens of sample number `index` say; stop strings cut the answer proper.

        `context`: the prompt's last tokens. `opening` None: it is no chat, so nothing is marked.
        """
        stops = request.params.stop
        if opening is None:
            text = self._plain.text(token_ids, context)
            return Message(cut_at_stop(text, stops), finish_reason)
        tools = callable_tools(request)
        said = self._as_declared(request, opening, token_ids, tools, context)
        said = said or self._apart(request, opening, token_ids, context)
        text, calls = cut_at_stop(said.text, stops), said.calls
        if tools and not calls and self.format is not None:
            found = tool_calls.find(self.format, text, tools)
            text, calls = (text, ()) if found is None else (found[0], tuple(found[1]))
        for mark in self._hidden:
            text = text.replace(mark, "")
        if not tools:  # what it calls all the same is text
            return Message(_joined(text, calls), finish_reason, said.reasoning)
        if not calls:
            return Message(text, finish_reason, said.reasoning)
        if request.params.parallel_tool_calls is False:
            calls = calls[:1]
        return Message(
            text,
            "tool_calls" if finish_reason == "stop" else finish_reason,
            said.reasoning,
            tool_calls.numbered(calls, request.seed, index),
        )

    def _apart(
        self,
        request: Request,
        opening: Opening,
        token_ids: Sequence[int],
        context: Sequence[int],
    ) -> Said:
        text, marks = self._marked.text(token_ids, context), self.marks
        if marks is None:
            return Said(None, text)
        # Under a structure white space is the answer's own, unless one token has it and the mark.
        structured = request.params.structure is not None and any(
            map(marks.close.endswith, self._added)
        )
        opened = thinking.is_opened(marks, opening.text, continued=opening.continued)
        return thinking.split(marks, text, opened=opened, exact=structured)

    def _as_declared(
        self,
        request: Request,
        opening: Opening,
        token_ids: Sequence[int],
        tools: Sequence[Mapping[str, Any]],
        context: Sequence[int],
    ) -> Said | None:
        """As the checkpoint's own `response_template` reads it; None: it has none, or can't."""
        # It would give a message that was begun with its beginning, and a structure stripped.
        if self._declared is None or opening.continued or request.params.structure is not None:
            return None
        raw = continued(lambda ids: str(self._tokenizer.decode(list(ids))), context, token_ids)
        try:
            found = self._tokenizer.parse_response(
                raw, prefix=opening.text, tools=list(tools) or None
            )
            calls = tuple(_declared_call(one) for one in found.get("tool_calls") or ())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        text = found.get("content") or ""
        reasoning = next((found[name] for name in _REASONING if found.get(name)), None)
        if not isinstance(text, str) or not isinstance(reasoning, str | None):
            return None
        if calls and not tools:
            return None
        return Said(reasoning, text, calls) if text or reasoning or calls else None


def callable_tools(request: Request) -> Sequence[Mapping[str, Any]]:
    """The functions that the answer may call."""
    return () if request.params.tool_choice == "none" else request.tools or ()


def demanded(request: Request) -> list[Mapping[str, Any]] | None:
    """The functions of which the answer must call one; None: it need not."""
    chosen = request.params.tool_choice
    if not must_call(chosen) or not request.tools:
        return None
    name = chosen_function(chosen)
    return [tool for tool in request.tools if name in (None, tool["function"]["name"])]


def _joined(text: str, calls: Sequence[tool_calls.Named]) -> str:
    return "\n\n".join(filter(None, [text, *(arguments for _, arguments in calls)]))


def _declared_marks(declared: Mapping[str, Any] | None) -> Marks | None:
    """The marks that a `response_template` names literally."""
    fields = (declared or {}).get("fields")
    if not isinstance(fields, Mapping):
        return None
    field: Mapping[str, Any] = next((fields[name] for name in _REASONING if name in fields), {})
    marks = [field.get(key) for key in ("open", "close")]
    opening, closing = (one[0] if isinstance(one, list) and one else one for one in marks)
    if not (isinstance(opening, str) and isinstance(closing, str)):
        return None
    return Marks(opening.strip(), closing.strip())


def _declared_call(call: Mapping[str, Any]) -> tool_calls.Named:
    """Raises TypeError or KeyError where it is none."""
    function = call.get("function", call)
    name, arguments = function["name"], function.get("arguments", {})
    if not isinstance(name, str):
        raise TypeError("a call without a name")
    if isinstance(arguments, str):
        return name, arguments
    return name, json.dumps(arguments, ensure_ascii=False)


def _all_marks(marks: Marks | None, format_: tool_calls.Format | None) -> Iterator[str]:
    """Everything that must be seen in a text to read it."""
    if marks is not None:
        yield from (marks.open, marks.close)
    if marks == thinking.HARMONY:
        yield from thinking.HARMONY_TOKENS
    if format_ is not None:
        yield from tool_calls.marks(format_)


def _added(tokenizer: Any) -> Mapping[str, int]:
    """The tokens that are no pieces of words, by their texts."""
    known = getattr(tokenizer, "get_added_vocab", None)
    return {} if known is None else known()
