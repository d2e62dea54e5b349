"""How fast is generation on a GPU, how far from its limit, and what is our attention worth?

    python benchmarks/gpu.py                        # Llama 3.2 1B's shape, random weights
    python benchmarks/gpu.py --shape llama-8b --prompts 4000
    python benchmarks/gpu.py --model FOLDER --only ours

The engine alone, fed from a list in memory, with our attention and CUDA graphs, without the
graphs, and with transformers' own paged attention. The limit: every weight is read once a step of
a full batch and every key and value once a token, at the rate of a large copy; products with
weights run at the rate of a large one. Weights are random where no folder is given: the texts are
nonsense, the work is the same.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
from transformers import AutoConfig, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.engines import generate, requests
from benchmarks.report import Report, forget_settings
from benchmarks.workloads import Task, mixed
from worker.engine.protocol import EngineConfig, EngineInfo
from worker.engine.transformers.engine import TransformersEngine
from worker.engine.transformers.runner import GraphRunner

#: Of Llama 3.2 1B and Llama 3.1 8B.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "llama-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
_VOCABULARY, _CONTEXT = 128_256, 8192

#: Name of a side -> engine options, and whether steps may be CUDA graphs.
SIDES: dict[str, tuple[dict[str, str], bool]] = {
    "ours": ({}, True),
    "ours without graphs": ({}, False),
    "transformers' own": ({"attention": "sdpa"}, False),
}

#: Megabytes that are copied, and rows of the square product, for the GPU's own rates.
_COPIED, _SQUARE, _TRIES = 4096, 8192, 10


@dataclass(frozen=True)
class Work:
    """What the model must do at least."""

    #: Tokens that go through the model's layers: prompts and texts.
    tokens: int
    new_tokens: int
    #: Tokens whose keys and values are read, all new tokens together.
    read_tokens: int


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--shape", type=click.Choice(list(SHAPES)), default="llama-1b", show_default=True)
@click.option("--model", help="A folder, in place of random weights.")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--prompts", default=2000, show_default=True)
@click.option(
    "--concurrency", multiple=True, type=int, help="Requests at once; default: the engine's own."
)
@click.option("--only", multiple=True, type=click.Choice(list(SIDES)))
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(
    shape: str,
    model: str | None,
    dtype: str,
    prompts: int,
    concurrency: Sequence[int],
    only: Sequence[str],
    seed: int,
    path: Path | None,
) -> None:
    forget_settings()
    if not torch.cuda.is_available():
        raise click.ClickException("PyTorch sees no GPU here: this benchmark is about GPUs")
    report = Report(
        "gpu",
        "How fast is generation on a GPU, and how far from its limit?",
        setup={"model": model or shape, "dtype": dtype, "prompts": prompts, "seed": seed},
        packages=("torch", "transformers"),
    )
    bandwidth, rate = copy_rate(), product_rate(getattr(torch, dtype))
    tasks = mixed(prompts, seed)
    with tempfile.TemporaryDirectory(prefix="promptmill-") as scratch:
        folder = model or str(random_model(shape, Path(scratch), getattr(torch, dtype)))
        work = needed(folder, tasks)
        for side, at_once in product(only or SIDES, concurrency or (None,)):
            click.echo(f"{side}, {at_once or 'default'} at once", err=True)
            info, tokens, seconds = measure(side, folder, dtype, tasks, at_once)
            moved, done = moved_bytes(folder, info, work), operations(info, work)
            least = moved / bandwidth + done / rate
            report.row(
                side=side,
                at_once=info.capacity,
                tokens=tokens,
                seconds=seconds,
                tokens_per_second=tokens / seconds,
                of_the_limit=least / seconds,
                of_the_bandwidth=moved / bandwidth / seconds,
                of_the_arithmetic=done / rate / seconds,
            )
    report.figures = {"bytes_per_second": bandwidth, "operations_per_second": rate}
    report.note(
        f"the GPU reads and writes {bandwidth / 1e12:.2f} TB/s in a copy and does "
        f"{rate / 1e12:.0f} TFLOP/s in a square product"
    )
    report.note(f"prompts have {work.tokens - work.new_tokens:,} tokens, texts {work.new_tokens:,}")
    report.finish(path)


def measure(
    side: str, folder: str, dtype: str, tasks: Sequence[Task], concurrency: int | None
) -> tuple[EngineInfo, int, float]:
    """What was loaded, tokens generated, seconds."""
    options, graphs = SIDES[side]
    config = EngineConfig(folder, "cuda", dtype, max_concurrency=concurrency, options=options)
    engine = TransformersEngine(config)
    runner: Any = GraphRunner
    warmup = runner.warmup
    if not graphs:
        runner.warmup = _no_graphs
    try:
        info = engine.start()
        generate(engine, requests(mixed(64, seed=99), "warm"))
        began = time.perf_counter()
        tokens = generate(engine, requests(tasks, "measured"))
        return info, tokens, time.perf_counter() - began
    finally:
        runner.warmup = warmup
        engine.close()


def _no_graphs(runner: Any, _: Any) -> None:
    runner.use_cuda_graph_decode = False


def random_model(shape: str, folder: Path, dtype: torch.dtype) -> Path:
    """Write a checkpoint of that shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.support.tiny_models import build_gpt2

    build_gpt2(folder, width=64, layers=1, context_length=64)  # for its tokenizer
    (folder / "model.safetensors").unlink()
    config = LlamaConfig(
        vocab_size=_VOCABULARY, max_position_embeddings=_CONTEXT, dtype=dtype, **SHAPES[shape]
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder)
    return folder


def needed(folder: str, tasks: Sequence[Task]) -> Work:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lengths = [(len(tokenizer(task.prompt)["input_ids"]), task.max_tokens) for task in tasks]
    return Work(
        tokens=sum(prompt + new for prompt, new in lengths),
        new_tokens=sum(new for _, new in lengths),
        read_tokens=sum(new * prompt + new * (new - 1) // 2 for prompt, new in lengths),
    )


def moved_bytes(folder: str, info: EngineInfo, work: Work) -> float:
    """Weights once a step of a full batch, keys and values of every token that is read."""
    shape = AutoConfig.from_pretrained(folder)
    itemsize = getattr(torch, info.dtype).itemsize
    per_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * itemsize
    steps = work.new_tokens / info.capacity
    return float(steps * info.parameters * itemsize + work.read_tokens * per_token)


def operations(info: EngineInfo, work: Work) -> float:
    """Multiplications and additions with weights; those of attention are left out."""
    return float(2 * info.parameters * work.tokens)


def copy_rate() -> float:
    """Bytes read and written a second."""
    source = torch.empty(_COPIED * 2**20, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source))


def product_rate(dtype: torch.dtype) -> float:
    """Operations a second."""
    left, right = (torch.randn(_SQUARE, _SQUARE, device="cuda").to(dtype) for _ in range(2))
    return 2 * _SQUARE**3 / _fastest(lambda: left @ right)


def _fastest(call: Any) -> float:
    seconds = float("inf")
    for _ in range(_TRIES):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
