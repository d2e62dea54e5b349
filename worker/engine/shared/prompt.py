"""From a request to the token ids that the model sees, or the reason why there are none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from worker.engine.protocol import EmbedRequest, Failed, Request, ScoreRequest, TokenLogprob
from worker.engine.shared.chat_template import ChatTemplate
from worker.engine.shared.detokenizer import Detokenizer, TokenScore
from worker.engine.shared.message import Message, Opening, Reader, demanded
from worker.engine.shared.rendering import Renderer
from worker.engine.shared.thinking import Phases
from worker.engine.shared.turn_ends import shown, turn_ends

_log = logging.getLogger(__name__)

#: What tokenizers raise for a text.
_UNREADABLE = (UnicodeError, TypeError, ValueError)

#: A text that others follow, whose last token joins with none of theirs.
_BEFORE = "a\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised prompt."""

    token_ids: list[int]
    #: What `echo` puts before the completion.
    text: str
    #: Whether the tokenizer put its special tokens around it; a template has its own.
    special: bool = True
    #: Of a chat: what it has of the answer's own turn.
    opening: Opening | None = None
    #: Its last tokens, behind which the text is decoded; none: that begins a text.
    context: tuple[int, ...] = ()


class Prompter:
    """Tokenises prompts and renders chats, as transformers' text-generation pipeline does."""

    def __init__(self, tokenizer: Any, *, joined: bool = True, readable: int | None = None) -> None:
        """`joined`: the text goes on from the prompt; an encoder-decoder's begins a new one.

        `readable`: token ids that the model can read, all below it; None: any.
        """
        self._tokenizer = tokenizer
        self._joined = joined
        self._readable = readable
        self.detokenizer = Detokenizer(tokenizer)
        # A fast tokenizer must not be reconfigured by one thread while another encodes.
        self._lock = Lock()
        self._warned_of_bos = False
        self.reader = Reader(tokenizer, self.following_ids)
        template = ChatTemplate(tokenizer)
        #: Ids that end a chat's answer, besides those that end any text.
        self.turn_ends = turn_ends(tokenizer, template)
        self._shown_ends = shown(tokenizer, self.turn_ends)
        self._renderer = Renderer(
            template,
            reasons=self.reader.marks is not None,
            opening_matters=self.reader.reads_openings,
        )

    def prompt(self, request: Request | ScoreRequest | EmbedRequest) -> Prompt | Failed:
        """Failed for a chat without a template, a template's own error, an empty prompt, or a
        token that the model can't read."""
        prompt: Prompt | Failed
        if not isinstance(request, EmbedRequest) and request.messages is not None:
            prompt = self._chat(request)
        elif request.prompt_ids is not None:
            prompt = self._given(list(request.prompt_ids))
        else:
            prompt = self._plain(request)
        if isinstance(prompt, Prompt) and not prompt.token_ids:
            return Failed("empty_prompt", "the prompt has no tokens: write at least one word")
        if isinstance(prompt, Failed):
            return prompt
        context = self._context(prompt.token_ids)
        return self._unreadable(prompt.token_ids) or replace(prompt, context=context)

    def completion(self, prompt: Prompt, text: str, *, joined: bool) -> list[int] | Failed:
        """The tokens of a given completion.

        `joined`: as they follow the prompt in one text. Where that would change the prompt's own
        tokens, as in the middle of a word, and where it is not joined: of the completion alone.
        """
        try:
            ids = self._completion_ids(prompt, text, joined=joined)
        except _UNREADABLE as error:
            return Failed("bad_prompt", f"the tokenizer can't read the completion: {_line(error)}")
        return self._unreadable(ids) or ids

    def message(
        self,
        request: Request,
        prompt: Prompt,
        token_ids: Sequence[int],
        finish_reason: str,
        index: int,
    ) -> Message:
        """What the tokens of sample number `index` say; under `echo` the prompt comes first."""
        if prompt.opening is not None and token_ids and token_ids[-1] in self._shown_ends:
            token_ids = token_ids[:-1]
        made = self.reader.message(
            request, prompt.opening, token_ids, finish_reason, index, prompt.context
        )
        return replace(made, text=prompt.text + made.text) if request.params.echo else made

    def phases(self, request: Request, prompt: Prompt) -> Phases | None:
        """Where a sample's thinking ends, for what is asked of the answer proper alone."""
        params = request.params
        guided = params.structure is not None or demanded(request) is not None
        if not guided and not params.stop:
            return None
        return self.reader.phases(prompt.opening, guided=guided)

    def logprobs(
        self, scores: Iterable[TokenScore], prompt_ids: Sequence[int]
    ) -> tuple[TokenLogprob, ...]:
        """The tokens that follow a prompt, each with what it adds to the text."""
        return self.detokenizer.logprobs(scores, self._context(prompt_ids))

    def following_ids(self, text: str) -> list[int]:
        """The tokens of a text that follows other text.

        Without the space that some tokenizers put before every text, where they can do without.
        """
        alone, before = (self._ids(one, special=False) for one in (text, _BEFORE))
        if self.detokenizer.text(alone, before) == text:
            return alone
        whole = self._ids(_BEFORE + text, special=False)
        rest = whole[len(before) :]
        joined = whole[: len(before)] == before and self.detokenizer.text(rest, before) == text
        return rest if joined else alone

    def _completion_ids(self, prompt: Prompt, text: str, *, joined: bool) -> list[int]:
        if not joined:
            return self._ids(text, special=False)
        whole = self._ids(prompt.text + text, special=prompt.special)
        length = len(prompt.token_ids)
        if whole[:length] == prompt.token_ids and len(whole) > length:
            return whole[length:]
        return self.following_ids(text)

    def _unreadable(self, token_ids: Sequence[int]) -> Failed | None:
        """Why the model can't read one of the tokens; None: it can."""
        rows = self._readable
        if rows is None or not token_ids or 0 <= min(token_ids) <= max(token_ids) < rows:
            return None
        token_id = next(one for one in token_ids if not 0 <= one < rows)
        name = self.detokenizer.name(token_id)
        named = f" ({name!r})" if name else ""
        return Failed(
            "unknown_token",
            f"token {token_id}{named} of the text is none of the model's, whose embedding has "
            f"{rows} rows: leave it out, or load a checkpoint that was resized for its tokenizer",
        )

    def _context(self, prompt_ids: Sequence[int]) -> tuple[int, ...]:
        return self.detokenizer.context(prompt_ids) if self._joined else ()

    def _plain(self, request: Request | ScoreRequest | EmbedRequest) -> Prompt | Failed:
        text, special = request.prompt or "", request.params.add_special_tokens is not False
        try:
            ids = self._ids(text, special=special)
        except _UNREADABLE as error:
            return Failed("bad_prompt", f"the tokenizer can't read the prompt: {_line(error)}")
        if special:
            self._warn_of_bos(ids)
        return Prompt(ids, text, special)

    def _warn_of_bos(self, ids: Sequence[int]) -> None:
        """Once: such a prompt was rendered already, and its BOS text became a second BOS."""
        bos = getattr(self._tokenizer, "bos_token_id", None)
        if self._warned_of_bos or bos is None or list(ids[:2]) != [bos, bos]:
            return
        self._warned_of_bos = True
        _log.warning(
            "a prompt begins with the text of the BOS token, and the tokenizer adds another one: "
            "for prompts that are rendered already, set add_special_tokens to false",
            extra={"action": "bos_twice"},
        )

    def _given(self, ids: list[int]) -> Prompt | Failed:
        """A prompt of token ids, which the model gets as they are."""
        size = len(self._tokenizer)
        unknown = next((one for one in ids if one >= size), None)
        if unknown is not None:
            return Failed(
                "bad_prompt",
                f"the prompt has the token id {unknown}, and the model's tokenizer has {size} "
                "tokens: give ids of this model",
            )
        return Prompt(ids, str(self._tokenizer.decode(ids)), special=False)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        with self._lock:
            return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def _chat(self, request: Request | ScoreRequest) -> Prompt | Failed:
        rendered = self._renderer.render(request)
        if isinstance(rendered, Failed):
            return rendered
        try:
            special = request.params.add_special_tokens is True
            ids = self._ids(rendered.text, special=special)
        except _UNREADABLE as error:
            return Failed("bad_prompt", f"the tokenizer can't read the chat: {_line(error)}")
        return Prompt(ids, rendered.text, special, opening=rendered.opening)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
