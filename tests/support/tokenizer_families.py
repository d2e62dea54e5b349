"""A tiny fast tokenizer of each decoder family, trained on the spot.

A family is how a tokenizer marks spaces and turns pieces back into text. Some strip the space
before a text's first word, so that a piece reads differently at the start of a text than within
it. Add a chat template, or further special tokens, as a test needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from tests.support.tiny_models import TRAINING_TEXT, VOCABULARY

Family = Literal[
    "byte-level",
    "sentencepiece",
    "sentencepiece-plain",
    "unigram",
    "wordpiece",
    "word-end",
]

FAMILIES: tuple[Family, ...] = get_args(Family)

#: Families whose pieces can be single bytes of a character.
BYTE_FAMILIES: tuple[Family, ...] = ("byte-level", "sentencepiece", "sentencepiece-plain")

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def family_tokenizer(family: Family, special: Sequence[str] = ()) -> Any:
    """A tokenizer with `<s>`, `</s>`, `<unk>` and the further `special` tokens.

    `byte-level`: GPT-2, Llama 3, Qwen. `sentencepiece`: Llama 2 and Mistral, which put a space
    before every text and strip it again, with a byte for each character that they lack.
    `sentencepiece-plain`: Gemma, the same without that space. `unigram`: T5, a space before every
    text and no bytes. `wordpiece`: BERT, pieces within a word begin with `##`. `word-end`: the
    first GPT, pieces at the end of a word end in `</w>`. It puts no special token around a text.
    """
    from transformers import PreTrainedTokenizerFast

    names = list(dict.fromkeys(["<unk>", "<s>", "</s>", *special]))
    return PreTrainedTokenizerFast(
        tokenizer_object=_BUILDERS[family](names),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(special),
        clean_up_tokenization_spaces=False,
    )


def _byte_level(names: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _trained(tokenizer, trainer)


def _sentencepiece(names: list[str], *, prefix: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    # Trained with the words apart, as SentencePiece does, and used without a pre-tokenizer.
    teacher = Tokenizer(models.BPE(unk_token="<unk>"))
    teacher.normalizer = normalizers.Replace(" ", _SPACE)
    teacher.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*names, *_BYTES], show_progress=False
    )
    learnt = _state(_trained(teacher, trainer))["model"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=learnt["vocab"],
            merges=[tuple(merge) for merge in learnt["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.add_special_tokens(names)
    replace = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), replace]) if prefix else replace
    )
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _unigram(names: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=names, unk_token="<unk>", show_progress=False
    )
    return _trained(tokenizer, trainer)


def _wordpiece(names: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=names, show_progress=False
    )
    return _trained(tokenizer, trainer)


def _word_end(names: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=names,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    return _trained(tokenizer, trainer)


def _trained(tokenizer: Any, trainer: Any) -> Any:
    tokenizer.train_from_iterator(TRAINING_TEXT.splitlines(), trainer)
    return tokenizer


def _state(tokenizer: Any) -> Any:
    import json

    return json.loads(tokenizer.to_str())


_BUILDERS: dict[Family, Callable[[list[str]], Any]] = {
    "byte-level": _byte_level,
    "sentencepiece": lambda names: _sentencepiece(names, prefix=True),
    "sentencepiece-plain": lambda names: _sentencepiece(names, prefix=False),
    "unigram": _unigram,
    "wordpiece": _wordpiece,
    "word-end": _word_end,
}
