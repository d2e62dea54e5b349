"""Two batches on one worker at the same time: each gets what it would have got alone."""

from __future__ import annotations

import pytest

from tests.acceptance.mill import Mill, echoing
from tests.support.checkpoints import Checkpoint

_WORDS = ("the river", "a quiet garden", "seven stones", "one more time", "under the bridge")


def _prompts(mill: Mill, name: str, count: int) -> str:
    texts = (f"{name} {_WORDS[number % 5]} {number}" for number in range(count))
    return mill.prompts(texts, f"{name}.txt")


def _submit(mill: Mill, name: str, count: int, *options: str) -> str:
    file = _prompts(mill, name, count)
    done = mill.ok("submit", file, "--model", mill.model, "-p", "temperature=0", *options)
    return done.strip()


def _texts(mill: Mill, batch: str) -> list[str | None]:
    mill.finished(batch)
    return [one.text for one in sorted(mill.client.results(batch), key=lambda one: one.line)]


def test_given_two_batches_at_once_when_echoed_then_no_word_of_one_is_in_the_other(
    mill: Mill,
) -> None:
    mill.env["PROMPTMILL_CHUNK_SIZE"] = "8"
    batches = {name: _submit(mill, name, 120) for name in ("red", "blue")}
    mill.worker(echoing(latency=0.01, capacity=16))
    for name, batch in batches.items():
        expected = [f"{name} {_WORDS[number % 5]} {number}" for number in range(120)]
        assert _texts(mill, batch) == expected


@pytest.mark.parametrize("batching", ["continuous", "static"])
def test_given_two_batches_at_once_when_a_model_generates_then_each_is_as_alone(
    mill: Mill, checkpoint: Checkpoint, batching: str
) -> None:
    mill.model = str(checkpoint("gpt2"))
    mill.env |= {
        "PROMPTMILL_ENGINE": "transformers",
        "PROMPTMILL_DTYPE": "float32",
        "PROMPTMILL_CHUNK_SIZE": "4",
        "PROMPTMILL_DEVICE": "cpu",
    }
    limit = ("-p", "max_tokens=8")
    names = ("red", "blue")
    together = {name: _submit(mill, name, 16, *limit) for name in names}
    mill.worker(f'{{"batching": "{batching}"}}')
    interleaved = {name: _texts(mill, batch) for name, batch in together.items()}
    for name in names:
        alone = _texts(mill, _submit(mill, name, 16, *limit))
        assert alone == interleaved[name]
        assert any(alone)
