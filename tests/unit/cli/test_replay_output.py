"""What `promptmill replay` shows to people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from db.records import Provenance
from producer.commands.replay_ import _show
from producer.replaying import Replay, differences

MADE = Provenance(
    model="org/model",
    revision="abc",
    weights=None,
    tokenizer="a1",
    adapter=None,
    engine="transformers",
    engine_version="5.23.0, torch 2.13.0",
    backend="static",
    dtype="bfloat16",
    device="cpu",
    hardware="x86_64 AVX512",
)


def shown(capsys: pytest.CaptureFixture[str], one: str, other: str, now: Provenance) -> list[str]:
    samples = [[{"text": text, "finish_reason": "stop"}] for text in (one, other)]
    _show(Replay("bk3v9xq2h7mz-5", differences(*samples), MADE, now))
    return capsys.readouterr().out.splitlines()


def test_given_the_same_text_when_shown_then_it_is_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown(capsys, "a", "a", MADE) == ["bk3v9xq2h7mz-5: the same text"]


def test_given_another_text_when_shown_then_both_are_there_from_shortly_before_they_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = shown(capsys, "x" * 50 + "\nold", "x" * 50 + "\n\x1b" + "new" * 40, MADE)
    assert told[0] == "bk3v9xq2h7mz-5: another text"
    assert told[1] == "sample 0 differs from character 52 on:"
    assert told[2] == "  then  …" + "x" * 19 + r"\nold (stop)"
    assert told[3].startswith("  now   …" + "x" * 19 + r"\n\x1bnewnew")
    assert told[3].endswith("… (stop)")
    assert told[4].startswith("nothing that is recorded differs")


def test_given_another_provenance_when_shown_then_each_part_that_differs_is_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = replace(MADE, weights="5f", device="cuda:0")
    assert shown(capsys, "a", "a", now) == [
        "bk3v9xq2h7mz-5: the same text",
        "weights: not known then, 5f now",
        "device: cpu then, cuda:0 now",
    ]
