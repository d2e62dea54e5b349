"""Generated ids are decoded as the continuation of their prompt, in every decoder family."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tokenizer_families import (
    BYTE_FAMILIES,
    FAMILIES,
    Family,
    family_tokenizer,
)
from worker.engine.shared.detokenizer import Detokenizer, TokenScore
from worker.engine.stopping import StopDetector
from worker.engine.text_stream import TextStream

WORDS = ("Hello", "the quick", "fox", "jumps over", "Paris", "miller", "counts.", "Müller", "(a,")
STRANGE = ("😀", "日本語", "é", "👩‍👩‍👧", "żó")

tokenizer = cache(family_tokenizer)


def ids_of(family: Family, text: str) -> list[int]:
    return list(tokenizer(family)(text, add_special_tokens=False)["input_ids"])


@st.composite
def texts(draw: st.DrawFn, family: Family) -> str:
    words = WORDS + STRANGE if family in BYTE_FAMILIES else WORDS
    return " ".join(draw(st.lists(st.sampled_from(words), min_size=2, max_size=8)))


@st.composite
def split_texts(draw: st.DrawFn) -> tuple[Family, list[int], list[int]]:
    """A text's ids, cut in two anywhere."""
    family = draw(st.sampled_from(FAMILIES))
    ids = ids_of(family, draw(texts(family)))
    cut = draw(st.integers(1, max(1, len(ids) - 1)))
    return family, ids[:cut], ids[cut:]


def expected(family: Family, prompt: Sequence[int], generated: Sequence[int]) -> str:
    """The whole text less the prompt's, by definition; a begun character is part of it."""
    plain, ids = tokenizer(family), list(prompt)
    while (before := plain.decode(ids, skip_special_tokens=True)).endswith("\ufffd"):
        ids.pop()
    whole = plain.decode([*prompt, *generated], skip_special_tokens=True)
    assert whole.startswith(before)
    return str(whole[len(before) :])


@settings(max_examples=300, deadline=None)
@given(split_texts())
def test_text_is_whole_text_less_prompt(parts: tuple[Family, list[int], list[int]]) -> None:
    family, prompt, generated = parts
    detokenizer = Detokenizer(tokenizer(family))
    text = detokenizer.text(generated, detokenizer.context(prompt))
    assert text == expected(family, prompt, generated)


@settings(max_examples=300, deadline=None)
@given(split_texts())
def test_streamed_text_is_the_same(parts: tuple[Family, list[int], list[int]]) -> None:
    family, prompt, generated = parts
    detokenizer = Detokenizer(tokenizer(family))
    stream = TextStream(detokenizer.decode, detokenizer.context(prompt))
    settled = "".join(map(stream.push, generated))
    assert settled + stream.pending_text == expected(family, prompt, generated)


@settings(max_examples=300, deadline=None)
@given(split_texts())
def test_tokens_of_logprobs_are_the_text(parts: tuple[Family, list[int], list[int]]) -> None:
    family, prompt, generated = parts
    detokenizer = Detokenizer(tokenizer(family))
    context = detokenizer.context(prompt)
    if detokenizer.decode(context).endswith("\ufffd"):
        return  # the first token's bytes are half of a character, the text has all of it
    scores = [TokenScore(one, -1.0, ((one, -1.0),)) for one in generated]
    named = detokenizer.logprobs(scores, context)
    special = set(tokenizer(family).all_special_ids)
    data = b"".join(one.bytes or one.token.encode() for one in named if one.token_id not in special)
    assert data.decode() == detokenizer.text(generated, context)
    assert all((one.top[0].token, one.top[0].bytes) == (one.token, one.bytes) for one in named)


@pytest.mark.parametrize("family", FAMILIES)
def test_space_of_the_first_word_is_kept(family: Family) -> None:
    prompt = ids_of(family, "Hello")
    generated = ids_of(family, "Hello the quick fox")[len(prompt) :]
    detokenizer = Detokenizer(tokenizer(family))
    assert detokenizer.text(generated, detokenizer.context(prompt)) == " the quick fox"
    assert detokenizer.text(generated) == expected(family, [], generated)  # it begins a text
    (first, *_) = detokenizer.logprobs(
        [TokenScore(one, 0.0) for one in generated], detokenizer.context(prompt)
    )
    assert first.token.startswith(" t")


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_are_no_context(family: Family) -> None:
    prompt = [*ids_of(family, "Hello"), *[tokenizer(family).eos_token_id] * 20]
    generated = ids_of(family, "Hello the fox")[len(ids_of(family, "Hello")) :]
    detokenizer = Detokenizer(tokenizer(family))
    assert detokenizer.text(generated, detokenizer.context(prompt)) == " the fox"
    named = detokenizer.logprobs([TokenScore(tokenizer(family).eos_token_id, 0.0)])
    assert (named[0].token, named[0].bytes) == ("</s>", None)


@pytest.mark.parametrize("family", BYTE_FAMILIES)
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_cut_character_leaves_those_before_it(family: Family, cut: int) -> None:
    ids = ids_of(family, "x 😀😀😀😀😀")
    text = Detokenizer(tokenizer(family)).text(ids[:-cut], ids_of(family, "Hello"))
    assert text.rstrip("\ufffd").strip() == "x 😀😀😀😀"
    assert text.endswith("\ufffd")


def test_byte_that_is_no_character_spoils_no_other() -> None:
    plain = tokenizer("sentencepiece")
    stray = plain.convert_tokens_to_ids("<0xFF>")
    faces = ids_of("sentencepiece-plain", "😀😀")
    ids = [*faces, stray, *faces, stray]
    assert Detokenizer(plain).text(ids) == "😀😀\ufffd😀😀\ufffd"


@pytest.mark.parametrize("family", FAMILIES)
def test_partial_characters_have_bytes(family: Family) -> None:
    detokenizer = Detokenizer(tokenizer(family))
    ids = ids_of(family, "é😀")
    named = detokenizer.logprobs([TokenScore(one, 0.0) for one in ids])
    partial = [one for one in named if one.bytes is not None]
    assert bool(partial) == (family in BYTE_FAMILIES)
    assert all(one.token == "\ufffd" for one in partial)


@pytest.mark.parametrize("family", FAMILIES)
def test_stop_string_with_its_space_is_noticed(family: Family) -> None:
    detokenizer = Detokenizer(tokenizer(family))
    prompt = ids_of(family, "Hello")
    generated = ids_of(family, "Hello the fox")[len(prompt) :]
    detector = StopDetector(detokenizer.decode, [" the"], detokenizer.context(prompt))
    assert any(map(detector.push, generated))


@pytest.mark.parametrize("family", BYTE_FAMILIES)
def test_stop_string_of_byte_tokens_is_noticed(family: Family) -> None:
    detokenizer = Detokenizer(tokenizer(family))
    ids = ids_of(family, "日本語日本語日本語終")
    detector = StopDetector(detokenizer.decode, ["終"])
    assert [detector.push(one) for one in ids] == [False] * (len(ids) - 1) + [True]


def test_work_of_a_token_does_not_grow_with_the_text() -> None:
    widths: list[int] = []
    plain = tokenizer("byte-level")

    def decode(token_ids: Sequence[int]) -> str:
        widths.append(len(token_ids))
        return str(plain.decode(list(token_ids), skip_special_tokens=True))

    stream = TextStream(decode)
    for token_id in ids_of("byte-level", "the quick fox 😀 " * 200):
        stream.push(token_id)
    assert max(widths) < 30


def test_tokenizer_without_vocabulary_is_decoded_too() -> None:
    class Letters:
        def decode(self, token_ids: Sequence[int], **_: Any) -> str:
            return "".join(chr(97 + one) for one in token_ids)

    detokenizer = Detokenizer(Letters())
    assert detokenizer.text([1, 2], detokenizer.context([0])) == "bc"
    assert detokenizer.logprobs([TokenScore(3, 0.0)])[0].token == "d"
