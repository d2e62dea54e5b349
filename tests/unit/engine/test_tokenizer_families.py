"""Each tiny tokenizer behaves as its family does where a text begins."""

from __future__ import annotations

import pytest

from tests.support.tokenizer_families import FAMILIES, Family, family_tokenizer

#: Families whose decoder drops the space before a text's first word.
STRIPPING = {"sentencepiece", "unigram", "wordpiece", "word-end"}


@pytest.mark.parametrize("family", FAMILIES)
def test_family_strips_the_first_space_or_not(family: Family) -> None:
    tokenizer = family_tokenizer(family, ("<|turn|>",))
    ids = tokenizer("Hello the fox", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "Hello the fox"
    # Where " the" begins, as every family has it at the start of a piece.
    begin = next(at for at in range(1, len(ids)) if tokenizer.decode(ids[:at]) == "Hello")
    assert tokenizer.decode(ids[begin:]).startswith(" the") == (family not in STRIPPING)
    assert "<|turn|>" in tokenizer.all_special_tokens
