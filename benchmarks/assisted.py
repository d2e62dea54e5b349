"""What does assisted decoding bring, with one prompt at once and with eight?

    python benchmarks/assisted.py
    python benchmarks/assisted.py --model models/gemma3-270m --prompts 16 --tokens 64
    python benchmarks/assisted.py --model LARGE --assistant SMALL

The engine alone, fed from a list, greedy: prompts whose answer repeats them (a text to be copied,
values to be taken out of a record), where looking the prompt up should help, and a list of random
words, where it should not. Each side in turn, without assistance at both concurrencies. Every text
is compared with the one without assistance: in float32 they are the same, in bfloat16 rounding may
tip a tie.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Queue
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Report, forget_settings
from benchmarks.workloads import mixed
from db.sampling import SamplingParams
from worker.engine.protocol import Completed, Engine, EngineConfig, Outcome, Request
from worker.engine.registry import create

_NAMES = ("Ada", "Bruno", "Clara", "David", "Edith", "Felix", "Greta", "Hugo", "Irma", "Jakob")
_TOWNS = ("Leeds", "Bremen", "Lyon", "Porto", "Turin", "Gdansk", "Graz", "Bergen", "Ghent", "Cork")
_TRADES = ("miller", "baker", "farmer", "potter", "weaver", "tanner", "cooper", "smith", "mason")


def _sentence(draw: random.Random) -> str:
    return (
        f"{draw.choice(_NAMES)} is a {draw.choice(_TRADES)} in {draw.choice(_TOWNS)} who sold "
        f"{draw.randint(2, 90)} sacks of flour on day {draw.randint(1, 365)}."
    )


def _copied(draw: random.Random) -> str:
    text = " ".join(_sentence(draw) for _ in range(4))
    return f"Text: {text}\n\nThe same text once more, word for word: {text[:30]}"


def _extracted(draw: random.Random) -> str:
    """Three records in two forms, and a fourth in the first."""
    parts = []
    for _ in range(4):
        name, town, trade = draw.choice(_NAMES), draw.choice(_TOWNS), draw.choice(_TRADES)
        serial = draw.randint(10_000_000, 99_999_999)
        parts.append(
            f"Record: customer {name}, {trade} of {town}, account {serial}-{town.upper()}-{trade}\n"
            f'JSON: {{"name": "{name}", "town": "{town}", "trade": "{trade}", '
            f'"account": "{serial}-{town.upper()}-{trade}"}}'
        )
    return "\n".join(parts).rsplit("JSON:", 1)[0] + "JSON:"


def _random(draw: random.Random) -> str:
    return mixed(1, draw.randint(0, 10**6))[0].prompt[:200]


TASKS = {"copy": _copied, "extract": _extracted, "random words": _random}


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--model", default="models/gemma3-270m", show_default=True, help="A folder.")
@click.option("--assistant", help="A smaller model of the same vocabulary, tried as well.")
@click.option("--dtype", default="float32", show_default=True)
@click.option("--lookup", default=[10], show_default=True, multiple=True, help="Tokens at once.")
@click.option("--prompts", default=8, show_default=True, help="Of each task.")
@click.option("--tokens", default=64, show_default=True, help="New tokens of each prompt.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(
    model: str,
    assistant: str | None,
    dtype: str,
    lookup: Sequence[int],
    prompts: int,
    tokens: int,
    seed: int,
    path: Path | None,
) -> None:
    forget_settings()
    report = Report(
        "assisted",
        "What does assisted decoding bring?",
        setup={"model": Path(model).name, "dtype": dtype, "prompts": prompts, "tokens": tokens},
        packages=("torch", "transformers"),
    )
    sides: dict[str, tuple[int, dict[str, str]]] = {
        "no assistance, one at once": (1, {}),
        "no assistance, eight at once": (8, {}),
    }
    for number in lookup:
        sides[f"prompt lookup {number}"] = (1, {"prompt_lookup": str(number)})
    if assistant is not None:
        sides[f"draft model {Path(assistant).name}"] = (1, {"assistant": assistant})
    work = _work(prompts, tokens, seed)
    speeds: dict[str, dict[str, float]] = {}
    expected: dict[str, list[str]] = {}
    for side, (at_once, options) in sides.items():
        config = EngineConfig(model, dtype=dtype, max_concurrency=at_once, options=options)
        for task, (speed, texts, notes) in _measured(config, work, tokens).items():
            speeds.setdefault(task, {})[side] = speed
            known = expected.setdefault(task, texts)
            alone, *others = speeds[task].values()
            report.row(
                task=task,
                side=side,
                tokens_per_second=speed,
                of_one_at_once=speed / alone,
                of_eight_at_once=speed / others[0] if others else None,
                same_texts=sum(a == b for a, b in zip(texts, known, strict=True)) / len(known),
                **notes,
            )
    report.rows.sort(key=lambda row: list(TASKS).index(str(row["task"])))
    report.finish(path)


def _work(prompts: int, tokens: int, seed: int) -> dict[str, list[Request]]:
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    draw = random.Random(seed)
    return {
        task: [
            Request(f"{task}-{place}", params, seed=0, prompt=make(draw))
            for place in range(prompts)
        ]
        for task, make in TASKS.items()
    }


def _measured(
    config: EngineConfig, work: dict[str, list[Request]], tokens: int
) -> dict[str, tuple[float, list[str], dict[str, float | None]]]:
    """Of each task: tokens a second, the texts in order, and how well drafts did."""
    engine = create("transformers", config)
    engine.start()
    found = {}
    try:
        for task, requests in work.items():
            _texts(engine, requests[:1])  # warms up
            before = _tally(engine)
            began, busy = time.perf_counter(), time.process_time()
            texts = _texts(engine, requests)
            made_in_all = len(requests) * tokens
            speed = made_in_all / (time.perf_counter() - began)
            busy = time.process_time() - busy
            steps, made, drafted, right = (
                now - then for now, then in zip(_tally(engine), before, strict=True)
            )
            notes = {
                "processor_ms_a_token": 1000 * busy / made_in_all,
                "tokens_a_step": made / steps if steps else None,
                "drafted_ones_right": right / drafted if drafted else None,
            }
            found[task] = (speed, texts, notes)
    finally:
        engine.close()
    return found


def _texts(engine: Engine, requests: Sequence[Request]) -> list[str]:
    answers: Queue[tuple[str, Outcome]] = Queue()
    for request in requests:
        engine.submit(request, lambda *answer: answers.put(answer))
    texts = {}
    for _ in requests:
        name, outcome = answers.get()
        assert isinstance(outcome, Completed), outcome
        texts[name] = outcome.samples[0].text
    return [texts[request.id] for request in requests]


def _tally(engine: Any) -> tuple[int, int, int, int]:
    """Steps, tokens, drafted ones and right ones so far; zeros without assistance."""
    tally = getattr(engine._running.backend, "tally", None)  # noqa: SLF001
    return (tally.steps, tally.tokens, tally.drafted, tally.taken) if tally else (0, 0, 0, 0)


if __name__ == "__main__":
    main()
