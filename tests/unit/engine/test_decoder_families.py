"""The engine's texts in every decoder family: those of the whole text, less the prompt's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.support.collector import completed, outcomes, request
from tests.support.measured import embedding_of, measured, score_of
from tests.support.tiny_models import build_llama
from tests.support.tokenizer_families import BYTE_FAMILIES, FAMILIES, Family, family_tokenizer
from worker.engine.protocol import Completed, EngineConfig, Failed, Scored
from worker.engine.shared.prompt import Prompter
from worker.engine.transformers.engine import TransformersEngine

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module", params=["sentencepiece", "wordpiece"])
def family(request: pytest.FixtureRequest) -> Family:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_llama(family_tokenizer(family), tmp_path_factory.mktemp("llama") / family))


@pytest.fixture(scope="module")
def engine(folder: str) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(EngineConfig(folder, "cpu", "float32"))
    engine.start()
    yield engine
    engine.close()


def generated(folder: str, tokens: int) -> tuple[Any, list[int], list[int]]:
    """transformers' own greedy continuation: tokenizer, prompt ids and generated ids."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    ids = model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
    )[0].tolist()
    return tokenizer, ids[:length], ids[length:]


def test_text_is_that_of_the_whole_less_the_prompt(
    family: Family, folder: str, engine: TransformersEngine
) -> None:
    tokenizer, prompt, own = generated(folder, 24)
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    whole = tokenizer.decode([*prompt, *own], skip_special_tokens=True)
    greedy = {"max_tokens": 24, "ignore_eos": True}
    answers = completed(
        engine,
        [
            request("text", PROMPT, logprobs=2, **greedy),
            request("echo", PROMPT, echo=True, **greedy),
        ],
    )
    sample = answers["text"].samples[0]
    if family not in BYTE_FAMILIES:  # else random bytes are no characters
        assert before + sample.text == whole
    assert answers["echo"].samples[0].text == PROMPT + sample.text
    assert [one.token_id for one in sample.logprobs or ()] == own
    special = set(tokenizer.all_special_ids)
    data = b"".join(
        one.bytes or one.token.encode()
        for one in sample.logprobs or ()
        if one.token_id not in special
    )
    assert data.decode("utf-8", "replace") == sample.text


def test_stop_string_is_found_at_a_space(folder: str, engine: TransformersEngine) -> None:
    answer = completed(engine, [request("a", PROMPT, max_tokens=24, ignore_eos=True)])["a"]
    text = answer.samples[0].text
    stop = text[text.index(" ") : text.index(" ") + 2]
    cut = completed(engine, [request("a", PROMPT, max_tokens=24, ignore_eos=True, stop=[stop])])
    assert (cut["a"].samples[0].text, cut["a"].samples[0].finish_reason) == (
        text[: text.index(stop)],
        "stop",
    )


def test_choice_keeps_its_space(family: Family, engine: TransformersEngine) -> None:
    if family not in BYTE_FAMILIES:
        pytest.skip("llguidance reads no such tokenizer: such a job fails with bad_structure")
    texts = (" the quick", " fox", "miller")
    for chosen in texts:
        answer = completed(engine, [request("a", PROMPT, max_tokens=24, choice=[chosen])])["a"]
        assert (answer.samples[0].text, answer.samples[0].finish_reason) == (chosen, "stop")


@pytest.mark.parametrize("completion", [" jumps over", "es and the miller"])
def test_scored_tokens_are_the_completion(engine: TransformersEngine, completion: str) -> None:
    answer = measured(engine, [score_of("a", PROMPT, completion, logprobs=1)])["a"]
    assert isinstance(answer, Scored)
    text = "".join(one.token for one in answer.logprobs or ())
    assert text.replace(" ", "") == completion.replace(" ", "")
    if completion.startswith(" "):
        assert text.startswith(" ")


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("text", ["Hello", "fox the"])
def test_ids_of_following_text_have_no_space_before(kind: Family, text: str) -> None:
    prompter = Prompter(family_tokenizer(kind))
    ids = prompter.following_ids(text)
    followed = prompter.detokenizer.text(ids, prompter.following_ids("miller"))
    # These two know no piece without a space before it that begins a word.
    assert followed == (f" {text}" if kind in ("wordpiece", "word-end") else text)


def test_token_without_a_row_is_refused_alone(tmp_path: Path) -> None:
    tokenizer = family_tokenizer("byte-level")
    folder = build_llama(tokenizer, tmp_path / "llama")
    tokenizer.add_tokens(["<tool>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    engine = TransformersEngine(EngineConfig(str(folder), "cpu", "float32"))
    engine.start()
    answers = outcomes(engine, [request("a", "Use <tool> now"), request("b", PROMPT)])
    scores = measured(engine, [score_of("c", PROMPT, " <tool>"), embedding_of("d", "<tool>")])
    engine.close()
    assert isinstance(answers["b"], Completed)
    for refused in (answers["a"], scores["c"], scores["d"]):
        assert isinstance(refused, Failed)
        assert (refused.code, refused.retriable) == ("unknown_token", False)
        assert "token 512 ('<tool>')" in refused.message
        assert "512 rows" in refused.message
