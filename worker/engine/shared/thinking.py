"""Which part of an answer is the model's thinking, and which tokens are still part of it. Pure.

Reasoning models think before they answer and mark where that begins and ends: between `<think>`
and `</think>`, or in a channel of its own. A prompt may have opened the thinking already, as
DeepSeek-R1's template does; then the answer has the closing mark only.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from worker.engine.stopping import StopDetector
from worker.engine.text_stream import REPLACEMENT, Decode


@dataclass(frozen=True, slots=True)
class Marks:
    """What a model writes before and after its thinking."""

    open: str
    close: str
    #: What it may write around the answer that follows.
    around: tuple[str, str] | None = None


#: gpt-oss: channels, of which `final` has the answer. It thinks unless the prompt says where.
HARMONY = Marks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>")

HARMONY_TOKENS = (
    *("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"),
    *("<|end|>", "<|return|>", "<|call|>"),
)

#: The first whose closing mark the chat template or the vocabulary has is the model's.
KNOWN = (
    HARMONY,
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("◁think▷", "◁/think▷"),  # Kimi
    Marks("<thought>", "</thought>"),  # EXAONE Deep
    Marks("<think>", "</think>"),  # DeepSeek-R1, Qwen3, GLM, Granite 3.3, Hunyuan, SmolLM3, …
    Marks("Here is my thought process:", "Here is my response:"),  # Granite 3.2
)

#: Of those that put tags around what follows their `<think>`: Hunyuan and Granite 3.3.
_AROUND = (("<answer>", "</answer>"), ("<response>", "</response>"))

#: Of a message of gpt-oss: how it ends, whom it is for, and its channel.
_HARMONY_END = re.compile(r"<\|(?:end|return|call)\|>")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


def marks_of(template: str, vocabulary: Container[str]) -> Marks | None:
    """A model's marks, by its chat template and its own added tokens; None: it has none known."""
    for marks in KNOWN:
        if marks.close in template or marks.close in vocabulary:
            around = next((two for two in _AROUND if two[1] in template), None)
            return Marks(marks.open, marks.close, around) if around else marks
    return None


def is_opened(marks: Marks, opening: str, *, continued: bool) -> bool:
    """Whether the answer begins within the thinking.

    `opening`: what of the answer's own turn the prompt has already; `continued`: that is a
    message that was begun.
    """
    if marks == HARMONY:
        return not continued
    if continued:  # a mark elsewhere is a word of the message's
        return opening.lstrip().startswith(marks.open) and marks.close not in opening
    return opening.rfind(marks.open) > opening.rfind(marks.close)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, its thinking apart."""

    #: None: it did not think, or does not mark it.
    reasoning: str | None
    text: str
    #: Calls that a channel was given to, `(function, arguments)`.
    calls: tuple[tuple[str, str], ...] = ()


def split(marks: Marks, text: str, *, opened: bool, exact: bool = False) -> Said:
    """The thinking apart from the answer.

    `text` has the marks in it. Where it ends before the closing mark, all of it is thinking.
    `exact`: white space after the mark is the answer's own.
    """
    if marks == HARMONY:
        return _split_channels(text, opened=opened, exact=exact)
    begun = text.lstrip()
    if begun.startswith(marks.open):
        text = begun[len(marks.open) :]
    elif not opened:
        return Said(None, text)
    thought, _, answer = text.partition(marks.close)
    if marks.around is not None:
        answer = _unwrapped(answer, marks.around)
    return Said(thought.strip() or None, answer if exact else answer.lstrip())


def _unwrapped(text: str, around: tuple[str, str]) -> str:
    before, after = around
    stripped = text.strip()
    if not stripped.startswith(before):
        return text
    return stripped[len(before) :].removesuffix(after).strip()


def _split_channels(text: str, *, opened: bool, exact: bool) -> Said:
    """Thinking is what the channel `analysis` has; a message with a recipient is a call."""
    thought: list[str] = []
    said: list[str] = []
    calls: list[tuple[str, str]] = []
    for number, message in enumerate(text.split("<|start|>")):
        header, found, body = message.partition("<|message|>")
        if not found:
            if number or opened:
                continue  # cut off before it said anything
            header, body = "", message  # it goes on with a message that was begun
        whole = _HARMONY_END.split(body)[0]
        body = whole.strip()
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        if recipient is not None:
            calls.append((recipient[1], body))
        elif channel is not None and channel[1] == "analysis":
            thought.append(body)
        else:
            said.append(whole if exact else body)
    reasoning = "\n\n".join(filter(None, thought)) or None
    return Said(reasoning, "\n\n".join(filter(None, said)), tuple(calls))


class Phases:
    """Which of a growing list of tokens are the answer's own, and which its thinking's."""

    def __init__(
        self, marks: Marks, decode: Decode, encode: Callable[[str], list[int]], *, opened: bool
    ) -> None:
        """`decode` leaves the marks in the text; `encode` adds no special tokens."""
        self._marks = marks
        self._decode = decode
        self._encode = encode
        self._opened = opened
        #: The token ids of the mark that begins the thinking; none where the prompt has it.
        self.open_ids = [] if opened else encode(marks.open)
        self.close = marks.close
        self.restart()

    def restart(self) -> None:
        """Forget all tokens."""
        #: Its thinking has begun and not ended.
        self.thinking = self._opened
        #: The answer proper has begun. Neither: nobody can tell yet.
        self.answering = False
        self._end = StopDetector(self._decode, (self._marks.close,))
        self._held: list[int] = []

    def fork(self) -> Phases:
        """One that has had the same tokens, and goes its own way from here."""
        fork = copy.copy(self)
        fork._held, fork._end = list(self._held), self._end.fork()  # noqa: SLF001 - of its own class
        return fork

    @property
    def begun(self) -> bool:
        """It thinks, or has begun to write the mark."""
        return not self.answering and (self.thinking or bool(self._held))

    @property
    def opens_with(self) -> int | None:
        """While nobody can tell: the token with which the model would go on to think."""
        place = len(self._held)
        if self.thinking or self.answering or self._held != self.open_ids[:place]:
            return None
        return self.open_ids[place] if place < len(self.open_ids) else None

    def settle(self) -> None:
        """It does not think: the next token is the answer's."""
        self.answering, self.thinking = True, False

    def push(self, token_id: int) -> Sequence[int]:
        """Take the next token; the answer's own tokens that are known by it."""
        if self.answering:
            return (token_id,)
        self._held.append(token_id)
        if not self.thinking:
            return self._decided()
        if not self._end.push(token_id):
            return ()
        self.answering, self.thinking = True, False
        # A token may have more than the end of the mark.
        rest = self._decode(self._held).partition(self._marks.close)[2].lstrip()
        return self._encode(rest) if rest else ()

    def _decided(self) -> Sequence[int]:
        text = self._decode(self._held).lstrip().rstrip(REPLACEMENT)
        if text.startswith(self._marks.open):
            self.thinking, self._held = True, []
        elif not self._marks.open.startswith(text):
            self.answering = True
            return tuple(self._held)
        return ()
