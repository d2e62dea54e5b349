"""How far is generation from what the machine's arithmetic allows, and where does the rest go?

    python benchmarks/limit.py
    python benchmarks/limit.py --dtype float32 --prompts 16

The limit: every product with the model's weights at the best rate that a large square product
reaches here. The rest is read off torch's profiler, whose own cost is in the shares and not in
the rate. The whole takes some minutes, most of them to read the profile.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AttentionInterface, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.engines import generate, requests
from benchmarks.report import Report, forget_settings
from benchmarks.workloads import Task, mixed
from worker.engine.protocol import EngineConfig
from worker.engine.shared.apart import apart
from worker.engine.transformers import attention, sampler
from worker.engine.transformers.engine import TransformersEngine

#: Rows and columns of the product whose rate counts, and how often it is tried.
_SQUARE, _TRIES = 2048, 12
_ATTENTION, _HEAD, _CHOICE = "attention", "vocabulary projection", "choice of the next tokens"
_LAYERS, _SMALL = "the layers' matrix products", "norms, activations, copies"
_BETWEEN = "between operators: Python, scheduling"


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--model", default="models/gemma3-270m", show_default=True, help="A folder.")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--prompts", default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(model: str, dtype: str, prompts: int, seed: int, path: Path | None) -> None:
    forget_settings()
    report = Report(
        "limit",
        "How far is generation from the machine's limit, and where does the rest go?",
        setup={"model": Path(model).name, "dtype": dtype, "prompts": prompts, "seed": seed},
        packages=("torch", "transformers"),
    )
    rate = apart(lambda: best_rate(getattr(torch, dtype)))
    tasks = mixed(prompts, seed)
    _label()
    engine = TransformersEngine(EngineConfig(model, "cpu", dtype))
    engine.start()
    try:
        head, body = _weights(_model(engine))
        _label_projection(_model(engine))
        generate(engine, requests(mixed(4, seed=99), "warm"))
        began = time.perf_counter()
        tokens = generate(engine, requests(tasks, "measured"))
        seconds = time.perf_counter() - began
        spent = _profiled(lambda: generate(engine, requests(tasks, "profiled")))
    finally:
        engine.close()
    for part, share in shares(spent).items():
        report.row(part=part, share=share, seconds=share * seconds)
    needed = operations(_lengths(model, tasks), head, body)
    _tell(report, tokens, seconds, needed / rate, rate)
    report.finish(path)


def best_rate(dtype: torch.dtype) -> float:
    """Operations a second in the fastest of some square products."""
    left, right = (torch.randn(_SQUARE, _SQUARE).to(dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        torch.mm(left, right)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * _SQUARE**3 / fastest


def operations(lengths: Iterable[tuple[int, int]], head: int, body: int) -> int:
    """Multiplications and additions with weights, for (prompt, new) tokens of each sequence.

    The last new token of a sequence never goes through the model. `head` and `body` are numbers
    of weights. Attention is left out: some hundredths, at these lengths.
    """
    return sum(2 * body * (prompt + new - 1) + 2 * head * new for prompt, new in lengths)


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Of each part, the largest first."""
    total = sum(seconds.values())
    return {
        part: spent / total
        for part, spent in sorted(seconds.items(), key=lambda item: item[1], reverse=True)
    }


def _tell(report: Report, tokens: int, seconds: float, shortest: float, rate: float) -> None:
    report.figures = {
        "tokens_per_second": tokens / seconds,
        "limit_tokens_per_second": tokens / shortest,
        "operations_per_second": rate,
    }
    report.note(f"measured: {tokens / seconds:.0f} tokens a second, without the profiler")
    report.note(
        f"limit: {tokens / shortest:.0f} tokens a second at {rate / 1e9:.0f} GFLOP/s; "
        f"reached: {shortest / seconds:.2f} of it"
    )


def _label() -> None:
    """Have the profiler see attention and the choice of tokens as one thing each."""
    attend, choose = attention.packed_attention, sampler.choose

    def labelled_attention(*args: Any, **named: Any) -> Any:
        with record_function(_ATTENTION):
            return attend(*args, **named)

    def labelled_choice(logits: torch.Tensor, rows: Sequence[sampler.Row]) -> torch.Tensor:
        with record_function(_CHOICE):
            return choose(logits, rows)

    AttentionInterface.register(attention.NAME, labelled_attention)
    sampler.choose = labelled_choice


def _model(engine: TransformersEngine) -> Any:
    backend: Any = engine._running.backend  # noqa: SLF001
    return backend._loaded.model  # noqa: SLF001


def _weights(model: Any) -> tuple[int, int]:
    """How many the vocabulary projection has, and how many the layers."""
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    outside = {id(embedding), id(head)}
    return head.numel(), sum(one.numel() for one in model.parameters() if id(one) not in outside)


def _label_projection(model: Any) -> None:
    """Have the profiler see the vocabulary projection as one thing."""
    head = model.get_output_embeddings()
    open_labels: list[Any] = []

    def enter(*_: Any) -> None:
        open_labels.append(record_function(_HEAD))
        open_labels[-1].__enter__()

    def leave(*_: Any) -> None:
        open_labels.pop().__exit__(None, None, None)

    head.register_forward_pre_hook(enter)
    head.register_forward_hook(leave)


def _lengths(model: str, tasks: list[Task]) -> list[tuple[int, int]]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    return [(len(tokenizer(task.prompt)["input_ids"]), task.max_tokens) for task in tasks]


def _profiled(call: Callable[[], object]) -> dict[str, float]:
    """Seconds of each part in the thread that generates."""
    settings = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)  # noqa: SLF001
    with profile(activities=[ProfilerActivity.CPU], experimental_config=settings) as profiler:
        call()
    events = profiler.events() or []
    ours = {event.thread for event in events if event.name == _CHOICE}
    mine = [event for event in events if event.thread in ours]
    spent: Counter[str] = Counter()
    for event in mine:
        spent[_part(event)] += event.self_cpu_time_total / 1e6
    whole = max(one.time_range.end for one in mine) - min(one.time_range.start for one in mine)
    spent[_BETWEEN] += whole / 1e6 - sum(spent.values())
    return dict(spent)


def _part(event: Any) -> str:
    """What the time of an operator, without those that it calls, was spent on."""
    one = event
    while one is not None:
        if one.name in {_ATTENTION, _HEAD, _CHOICE}:
            return str(one.name)
        one = one.cpu_parent
    return _LAYERS if event.name in {"aten::mm", "aten::addmm", "aten::bmm"} else _SMALL


if __name__ == "__main__":
    main()
