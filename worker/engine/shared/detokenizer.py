"""Generated token ids to text, and each token of them to what it adds to that text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from typing import Any

from worker.engine.protocol import TokenLogprob, TopLogprob
from worker.engine.text_stream import REPLACEMENT, added, continued, whole_and_begun

#: Tokens of the prompt that generated ones are decoded behind; more where these would begin
#: within a character.
_CONTEXT, _MOST_CONTEXT = 4, 8


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token under the model's own distribution (before temperature), in nats."""

    token_id: int
    logprob: float
    #: The likeliest tokens at its position, best first: (token id, log-probability).
    top: tuple[tuple[int, float], ...] = ()


class Detokenizer:
    """Decodes what one model generates, as the continuation of its prompt."""

    def __init__(self, tokenizer: Any, shown: Collection[int] = ()) -> None:
        """`shown`: special tokens that stay in the text, which the others do not."""
        self._tokenizer = tokenizer
        self._shown = frozenset(shown)
        self._special = special_ids(tokenizer)
        self._hidden = self._special - self._shown

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the ids alone, as if they began it."""
        text = self._decode(token_ids)
        if REPLACEMENT in text and not self._byte_ids.keys().isdisjoint(token_ids):
            return self._decode_by_runs([one for one in token_ids if one not in self._hidden])
        return text

    def context(self, prompt_ids: Sequence[int]) -> tuple[int, ...]:
        """The last few tokens of a prompt: enough to decode what follows as its continuation."""
        tail: list[int] = []
        for token_id in reversed(prompt_ids):
            enough = len(tail) >= _CONTEXT and not self._is_within_character(tail[-1])
            if enough or len(tail) >= _MOST_CONTEXT:
                break
            if token_id not in self._hidden:
                tail.append(token_id)
        return tuple(reversed(tail))

    def text(self, token_ids: Sequence[int], context: Sequence[int] = ()) -> str:
        """The text of generated ids: that of prompt and ids, less that of the prompt.

        `context` is what the method of that name gives for the prompt.
        """
        return continued(self.decode, context, token_ids)

    def logprobs(
        self, scores: Iterable[TokenScore], context: Sequence[int] = ()
    ) -> tuple[TokenLogprob, ...]:
        """Each token with what it adds to the text, special tokens with their names."""
        before, _ = whole_and_begun(self.decode, context)
        named = []
        for score in scores:
            before_text = self.decode(before) if before else ""
            piece = self._piece(score.token_id, before, before_text)
            top = [
                TopLogprob(token, token_id, logprob, data)
                for token_id, logprob in score.top
                for token, data in [self._piece(token_id, before, before_text)]
            ]
            named.append(
                TokenLogprob(piece[0], score.token_id, score.logprob, tuple(top), piece[1])
            )
            if score.token_id not in self._special and piece[1] is None:
                before = [score.token_id]
        return tuple(named)

    def name(self, token_id: int) -> str:
        """A token as the vocabulary has it; empty where the vocabulary has none of that id."""
        read = getattr(self._tokenizer, "convert_ids_to_tokens", None)
        return str((read(token_id) if read is not None else None) or "")

    def _decode(self, token_ids: Sequence[int]) -> str:
        if self._shown.isdisjoint(token_ids):
            return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))
        return str(self._tokenizer.decode([one for one in token_ids if one not in self._hidden]))

    def _decode_by_runs(self, token_ids: Sequence[int]) -> str:
        """With every character that the bytes have.

        The decoder gives up a whole run of bytes for one that is no character's, or is cut off.
        """
        text, before = "", list[int]()
        for is_byte, group in groupby(token_ids, self._byte_ids.__contains__):
            run = list(group)
            if is_byte:
                text += bytes(self._byte_ids[one] for one in run).decode("utf-8", "replace")
            else:
                text += added(self._decode(before), self._decode([*before, *run]))
            before = run[-1:]
        return text

    @cached_property
    def _byte_ids(self) -> Mapping[int, int]:
        """The tokens that are one byte, of a decoder that knows such."""
        read = getattr(self._tokenizer, "convert_tokens_to_ids", None)
        if read is None:
            return {}
        ids = read([f"<0x{byte:02X}>" for byte in range(256)])
        if ids[ord("A")] is None or self._decode(ids[ord("A") : ord("B")]) != "A":
            return {}
        return {token_id: byte for byte, token_id in enumerate(ids)}

    def _piece(
        self, token_id: int, before: Sequence[int], before_text: str
    ) -> tuple[str, bytes | None]:
        """What a token adds behind others; and its bytes, where they are not whole characters."""
        if token_id in self._special:
            return str(self._tokenizer.decode([token_id])), None
        text = added(before_text, self.decode([*before, token_id]))
        data = self._bytes(token_id) if REPLACEMENT in text else None
        if data is None:
            return text, None
        token = data.decode("utf-8", "replace")
        return token, None if token.encode() == data else data

    def _bytes(self, token_id: int) -> bytes | None:
        """The bytes of a token of a vocabulary that has parts of characters; None: it has none."""
        if token_id in self._byte_ids:
            return bytes([self._byte_ids[token_id]])
        token = self.name(token_id)
        alphabet = _byte_of_letter()
        if token and all(letter in alphabet for letter in token):
            return bytes(alphabet[letter] for letter in token)
        return None

    def _is_within_character(self, token_id: int) -> bool:
        """Whether it begins with a byte that no character begins with."""
        data = self._bytes(token_id)
        return data is not None and data[0] & 0xC0 == 0x80


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that a decoder leaves out of a text."""
    known = getattr(tokenizer, "added_tokens_decoder", None) or {}
    named = getattr(tokenizer, "all_special_ids", None) or ()
    return frozenset(named) | {number for number, token in known.items() if token.special}


@cache
def _byte_of_letter() -> Mapping[str, int]:
    """The letter that byte-level BPE writes for each byte, the other way round."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}
