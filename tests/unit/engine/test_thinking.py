"""Thinking apart from answers, as text and token by token, with the marks of real models."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.parrots import TEMPLATES, parrot_tokenizer
from worker.engine.shared import thinking
from worker.engine.shared.thinking import HARMONY, Marks, Phases, Said, is_opened, marks_of, split

THINK = Marks("<think>", "</think>")


@pytest.mark.parametrize(
    ("template", "vocabulary", "found"),
    [
        (TEMPLATES["qwen3"], {}, "<think>"),
        (TEMPLATES["r1"], {}, "<think>"),
        (TEMPLATES["harmony"], {}, HARMONY.open),
        (TEMPLATES["granite"], {}, "Here is my thought process:"),
        (TEMPLATES["magistral"], {}, "[THINK]"),
        ("{{ messages }}", {"</think>": 7}, "<think>"),
    ],
)
def test_given_a_template_or_a_vocabulary_when_read_then_its_marks_are_known(
    template: str, vocabulary: dict[str, int], found: str
) -> None:
    marks = marks_of(template, vocabulary)
    assert marks is not None
    assert marks.open == found


def test_given_a_template_without_marks_when_read_then_there_are_none() -> None:
    assert marks_of("{% for m in messages %}{{ m.content }}{% endfor %}", {"<eos>": 0}) is None


@pytest.mark.parametrize(
    ("text", "opened", "said"),
    [
        ("<think>\nHm.\n</think>\n\nParis.", False, Said("Hm.", "Paris.")),
        ("\n<think>Hm.</think>Paris.", False, Said("Hm.", "Paris.")),
        ("Hm.\n</think>\n\nParis.\n", True, Said("Hm.", "Paris.\n")),
        ("<think>Hm.</think>Paris.", True, Said("Hm.", "Paris.")),
        ("Hm, the capital", True, Said("Hm, the capital", "")),
        ("<think>Hm, the", False, Said("Hm, the", "")),
        ("<think>\n\n</think>\n\nParis.", False, Said(None, "Paris.")),
        ("Paris.", False, Said(None, "Paris.")),
        # Marks that somebody asked about are no thinking.
        ("The tag is <think>.", False, Said(None, "The tag is <think>.")),
        ("It ends with </think>.", False, Said(None, "It ends with </think>.")),
        ("Hm.</think>One </think> two.", True, Said("Hm.", "One </think> two.")),
    ],
)
def test_given_an_answer_when_split_then_its_thinking_is_apart(
    text: str, opened: bool, said: Said
) -> None:
    assert split(THINK, text, opened=opened) == said


def test_given_tags_around_the_answer_when_split_then_they_are_taken_off() -> None:
    marks = marks_of("<think></think><response></response>", {})
    assert marks is not None
    text = "<think>Hm.</think>\n<response>Paris.</response>"
    assert split(marks, text, opened=False) == Said("Hm.", "Paris.")
    assert split(marks, "<think>Hm.</think>Paris.", opened=False) == Said("Hm.", "Paris.")


def test_given_white_space_that_counts_when_split_then_it_is_kept() -> None:
    assert split(THINK, "Hm.</think> yes", opened=True, exact=True) == Said("Hm.", " yes")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            (
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
                "<|message|>Paris.<|return|>"
            ),
            Said("Hm.", "Paris."),
        ),
        ("<|channel|>final<|message|>Paris.<|return|>", Said(None, "Paris.")),
        ("<|channel|>analysis<|message|>Hm, the", Said("Hm, the", "")),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assis", Said("Hm.", "")),
        ("<|channel|>ana", Said(None, "")),
        (
            (
                "<|channel|>analysis<|message|>One.<|end|><|start|>assistant<|channel|>analysis"
                "<|message|>Two.<|end|><|start|>assistant<|channel|>commentary "
                "to=functions.weather "
                '<|constrain|>json<|message|>{"city": "Paris"}<|call|>'
            ),
            Said("One.\n\nTwo.", "", (("weather", '{"city": "Paris"}'),)),
        ),
        (
            # The recipient may stand before the channel.
            " to=functions.time<|channel|>commentary json<|message|>{}<|call|>",
            Said(None, "", (("time", "{}"),)),
        ),
    ],
)
def test_given_channels_when_split_then_each_goes_where_it_belongs(text: str, said: Said) -> None:
    assert split(HARMONY, text, opened=True) == said


def test_given_a_message_in_channels_that_was_begun_when_split_then_it_goes_on() -> None:
    assert split(HARMONY, "ris.<|return|>", opened=False) == Said(None, "ris.")


@pytest.mark.parametrize(
    ("opening", "continued", "opened"),
    [
        ("<|im_start|>assistant\n", False, False),
        ("<|Assistant|><think>\n", False, True),
        ("<|Assistant|><think>\nOkay,", False, True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False, False),
        ("<think>\nI should", True, True),
        ("<think>Hm.</think>Par", True, False),
        ("The tag <think> begins", True, False),
    ],
)
def test_given_a_prompt_when_looked_at_then_it_has_opened_the_thinking_or_not(
    opening: str, continued: bool, opened: bool
) -> None:
    assert is_opened(THINK, opening, continued=continued) is opened


# --- token by token -------------------------------------------------------------------------


def follow(marks: Marks, text: str, *, opened: bool, style: Any = "r1") -> tuple[str, Phases]:
    """The answer's own tokens as text, each as soon as it is known."""
    tokenizer = parrot_tokenizer(style)

    def encode(one: str) -> list[int]:
        return list(tokenizer.encode(one, add_special_tokens=False))

    phases = Phases(marks, tokenizer.decode, encode, opened=opened)
    own = [one for token in encode(text) for one in phases.push(token)]
    return tokenizer.decode(own), phases


@pytest.mark.parametrize("marks", [THINK, *thinking.KNOWN])
def test_given_any_marks_when_followed_then_the_answer_begins_behind_them(marks: Marks) -> None:
    said, phases = follow(marks, f"{marks.open} The mill. {marks.close}Paris.", opened=False)
    assert said == "Paris."
    assert phases.answering
    said, phases = follow(marks, f"The mill. {marks.close}Paris.", opened=True)
    assert said == "Paris."


def test_given_no_thinking_when_followed_then_every_token_is_the_answers() -> None:
    for text in ("Paris.", "  Paris", "<b>Paris", "Here is the answer"):
        for marks in (THINK, thinking.KNOWN[-1]):
            said, phases = follow(marks, text, opened=False, style="magistral")
            assert said == text
            assert phases.answering


def test_given_thinking_without_an_end_when_followed_then_nothing_is_the_answers() -> None:
    said, phases = follow(THINK, "<think>The mill grinds", opened=False)
    assert said == ""
    assert phases.thinking
    phases.restart()
    assert not phases.begun


def test_given_a_mark_of_several_tokens_when_begun_then_its_next_token_is_told() -> None:
    tokenizer = parrot_tokenizer("magistral")
    ids = tokenizer.encode("<think>", add_special_tokens=False)
    assert len(ids) > 2
    phases = Phases(
        THINK,
        tokenizer.decode,
        lambda one: list(tokenizer.encode(one, add_special_tokens=False)),
        opened=False,
    )
    told = []
    for token_id in ids:
        told.append(phases.opens_with)
        assert phases.push(token_id) == ()
    assert told == ids
    assert phases.thinking
    assert phases.opens_with is None
