"""The engine `vllm` with a real vLLM: its texts, and what becomes of its processes.

Where vLLM is not installed all of this is skipped; docs/engines.md says how to have it on a CPU.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from db.errors import ModelLoadError
from tests.support.checkpoints import Checkpoint, checkpoint  # noqa: F401
from tests.support.collector import Collector, completed, outcomes, request
from tests.support.processes import eventually
from worker.engine.protocol import Engine, EngineConfig, Failed
from worker.engine.registry import create
from worker.engine.vllm_engine import runner

pytest.importorskip("vllm")

pytestmark = pytest.mark.timeout(300)  # a start takes half a minute on two cores

ROOT = Path(__file__).parents[3]
PROMPT = "Hello, I'm a language model, and I run a mill"
ENDLESS = {"max_tokens": 200, "ignore_eos": True}


def made(folder: Path, **options: str) -> Engine:
    config = EngineConfig(
        str(folder), dtype="float32", max_concurrency=4, options={"kv_memory": "0.1", **options}
    )
    return create("vllm", config)


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> Iterator[Engine]:  # noqa: F811
    engine = made(checkpoint("gemma3-wide"))
    engine.start()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint) -> tuple[Any, Any]:  # noqa: F811
    """transformers' own model and tokenizer of the same checkpoint."""
    import torch
    import transformers

    folder = checkpoint("gemma3-wide")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def greedy(plain: tuple[Any, Any], prompt: str, tokens: int, **options: Any) -> list[int]:
    import torch

    model, tokenizer = plain
    inputs = tokenizer(prompt, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    with torch.no_grad():
        made = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=tokens,
            **options,
        )
    return [int(one) for one in made[0, length:]]


def token_ids(answer: Any, index: int = 0) -> list[int]:
    return [one.token_id for one in answer.samples[index].logprobs]


def engine_processes(name: str) -> list[psutil.Process]:
    """vLLM's processes below this one."""
    everything = psutil.Process().children(recursive=True)
    return [one for one in everything if name in " ".join([one.name(), *one.cmdline()])]


def test_given_many_prompts_when_greedy_then_tokens_and_logprobs_are_the_models_own(
    engine: Engine, plain: tuple[Any, Any]
) -> None:
    import torch

    prompts = [PROMPT[: 4 + 5 * n] for n in range(9)]
    answers = completed(
        engine, [request(str(n), p, logprobs=3, max_tokens=16) for n, p in enumerate(prompts)]
    )
    for n, prompt in enumerate(prompts):
        assert token_ids(answers[str(n)]) == greedy(plain, prompt, 16), prompt
    model, tokenizer = plain
    ids = tokenizer(prompts[0])["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids + token_ids(answers["0"])])).logits[0].float()
    expected = logits.log_softmax(dim=-1)
    for at, one in enumerate(answers["0"].samples[0].logprobs or ()):
        row = expected[len(ids) - 1 + at]
        assert one.logprob == pytest.approx(row[one.token_id].item(), abs=1e-3)
        assert [token for _, token, _, _ in one.top] == row.topk(3).indices.tolist()


def by_hand(model: Any, folder: Path, seed: int) -> Any:
    """Write an adapter as PEFT would, and give a model that has it in its weights."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    merged, tensors = copy.deepcopy(model), {}
    for path, layer in merged.named_modules():
        if path.endswith(("q_proj", "v_proj")):
            down, up = torch.randn(4, layer.in_features), torch.randn(layer.out_features, 4)
            layer.weight.data += 2 * (up * 0.2) @ (down * 0.2)
            tensors[f"base_model.model.{path}.lora_A.weight"] = down * 0.2
            tensors[f"base_model.model.{path}.lora_B.weight"] = up * 0.2
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return merged


def test_given_a_mixed_batch_of_adapters_when_greedy_then_each_has_its_own_and_the_rest_none(
    checkpoint: Checkpoint,  # noqa: F811
    plain: tuple[Any, Any],
    tmp_path: Path,
) -> None:
    model, tokenizer = plain
    models = {
        None: model,
        "fin": by_hand(model, tmp_path / "fin", 1),
        "law": by_hand(model, tmp_path / "law", 2),
    }
    adapters = {name: str(tmp_path / name) for name in ("fin", "law")}
    config = EngineConfig(
        str(checkpoint("gemma3-wide")),
        dtype="float32",
        max_concurrency=4,
        options={"kv_memory": "0.1"},
        adapters=adapters,
    )
    engine = create("vllm", config)
    assert list(engine.start().adapters) == ["fin", "law"]
    wanted = [
        request(f"{name}/{length}", PROMPT[:length], adapter=name, logprobs=True)
        for length in (12, 40)
        for name in models
    ]
    answers = completed(engine, wanted)
    (unknown,) = outcomes(engine, [request("x", PROMPT, adapter="tax")]).values()
    engine.close()
    for one in wanted:
        expected = greedy((models[one.params.adapter], tokenizer), one.prompt or "", 8)
        assert token_ids(answers[one.id]) == expected, one.id
    assert isinstance(unknown, Failed)
    assert unknown.code == "unknown_adapter"


def test_given_a_repetition_penalty_when_greedy_then_tokens_equal_generate(
    engine: Engine, plain: tuple[Any, Any]
) -> None:
    asked = request("a", PROMPT, repetition_penalty=1.7, logprobs=1, max_tokens=16)
    answer = completed(engine, [asked])["a"]
    assert token_ids(answer) == greedy(plain, PROMPT, 16, repetition_penalty=1.7)


def test_given_a_high_temperature_when_sampled_then_logprobs_are_not_heated(
    engine: Engine,
) -> None:
    cold = completed(engine, [request("a", PROMPT, logprobs=5, max_tokens=1)])["a"]
    hot = completed(engine, [request("b", PROMPT, logprobs=5, max_tokens=1, temperature=2.0)])["b"]
    tops = [one.samples[0].logprobs[0].top for one in (cold, hot) if one.samples[0].logprobs]
    assert tops[0] == tops[1]


def test_given_neighbouring_seeds_when_sampled_then_no_sample_is_shared_and_each_repeats(
    engine: Engine,
) -> None:
    def texts(seed: int) -> list[str]:
        asked = request("a", PROMPT, seed=seed, n=3, temperature=1.5, max_tokens=12)
        return [one.text for one in completed(engine, [asked])["a"].samples]

    first, second = texts(7), texts(8)
    assert len({*first, *second}) == 6
    assert texts(7) == first


def test_given_a_filter_to_one_token_when_sampled_then_the_text_is_the_greedy_one(
    engine: Engine,
) -> None:
    filters: list[dict[str, Any]] = [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}]
    asked = [request(str(n), PROMPT, temperature=1.5, **one) for n, one in enumerate(filters)]
    answers = completed(engine, [request("greedy", PROMPT), *asked])
    assert len({one.samples[0].text for one in answers.values()}) == 1


def test_given_a_stop_token_when_it_comes_then_it_ends_the_sample_and_is_counted(
    engine: Engine, plain: tuple[Any, Any]
) -> None:
    ids = greedy(plain, PROMPT, 12)
    asked = request("a", PROMPT, stop_token_ids=[ids[3]], ignore_eos=True, max_tokens=12)
    sample = completed(engine, [asked])["a"].samples[0]
    assert (sample.finish_reason, sample.completion_tokens) == ("stop", ids.index(ids[3]) + 1)


def test_given_a_chat_when_answered_then_the_text_follows_the_models_template(
    engine: Engine, plain: tuple[Any, Any]
) -> None:
    messages = [{"role": "user", "content": "Hello, what is the capital of France?"}]
    _, tokenizer = plain
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    answers = completed(engine, [request("chat", messages, echo=True)])
    assert answers["chat"].samples[0].text.startswith(text)
    assert answers["chat"].prompt_tokens == len(tokenizer(text, add_special_tokens=False).input_ids)


def test_given_what_vllm_can_not_do_when_asked_then_the_reason_is_told(engine: Engine) -> None:
    bad = {
        "hot": (request("hot", PROMPT, temperature=3.0), "unsupported_parameter"),
        "token": (request("token", PROMPT, stop_token_ids=[10**6]), "bad_stop_token"),
        "long": (request("long", PROMPT * 50), "prompt_too_long"),
    }
    answers = outcomes(engine, [asked for asked, _ in bad.values()])
    for name, (_, code) in bad.items():
        answer = answers[name]
        assert isinstance(answer, Failed)
        assert answer.code == code


def test_given_a_frozen_vllm_when_asked_then_stats_say_how_long_it_stands(engine: Engine) -> None:
    assert engine.stats().stalled_for == 0.0
    (frozen,) = engine_processes("EngineCore")
    collector = Collector()
    frozen.suspend()
    try:
        engine.submit(request("a", PROMPT), collector.on_done)
        eventually(lambda: engine.stats().stalled_for > 1, what="a stall")
    finally:
        frozen.resume()
    collector.wait(1)
    assert engine.stats().stalled_for == 0.0


def test_given_two_engines_when_the_older_is_closed_then_it_does_not_wait_for_the_other(
    checkpoint: Checkpoint,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "_PATIENCE", 3600)
    older, newer = made(checkpoint("gpt2-wide")), made(checkpoint("gpt2-wide"))
    before = set(engine_processes("EngineCore"))
    older.start()
    first = set(engine_processes("EngineCore")) - before
    newer.start()
    older.close()
    assert first.isdisjoint(engine_processes("EngineCore"))
    assert "a" in completed(newer, [request("a", PROMPT)])
    newer.close()
    assert set(engine_processes("EngineCore")) == before


def test_given_a_vllm_that_dies_when_working_then_all_is_answered_and_the_next_one_goes_on(
    checkpoint: Checkpoint,  # noqa: F811
) -> None:
    engine = made(checkpoint("gpt2-wide"))
    engine.start()
    collector = Collector()
    for n in range(12):
        engine.submit(request(str(n), PROMPT, **ENDLESS), collector.on_done)
    for core in engine_processes("EngineCore"):
        core.send_signal(signal.SIGKILL)
    answers = collector.wait(12)
    assert len(collector.answers) == 12
    failed = [one for one in answers.values() if isinstance(one, Failed)]
    assert failed
    assert all((one.code, one.retriable) == ("engine_error", True) for one in failed)
    assert engine.stats().in_flight == 0
    # Submitted while the next one loads.
    engine.submit(request("after", PROMPT), collector.on_done)
    eventually(lambda: len(collector.answers) == 13, what="an answer of the next", deadline=200)
    assert not isinstance(dict(collector.answers)["after"], Failed)
    left = psutil.Process().children(recursive=True)
    engine.close()
    assert [one for one in engine_processes("VLLM") if one in left] == []


HOLD = """
import sys, psutil
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create
if __name__ == "__main__":
    engine = create("vllm", EngineConfig(sys.argv[1], options={"kv_memory": "0.1"}))
    engine.start()
    print(*(one.pid for one in psutil.Process().children(recursive=True)), flush=True)
    sys.stdin.read()
"""


def test_given_a_worker_that_is_killed_when_it_has_loaded_then_no_process_is_left(
    checkpoint: Checkpoint,  # noqa: F811
    tmp_path: Path,
) -> None:
    script = tmp_path / "hold.py"
    script.write_text(HOLD, "utf-8")
    worker = subprocess.Popen(
        [sys.executable, script, checkpoint("gpt2-wide")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert worker.stdout is not None
    left = [psutil.Process(int(pid)) for pid in worker.stdout.readline().split()]
    assert len(left) >= 3  # vLLM's engine, its worker and the guard
    worker.kill()
    worker.wait()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == []


@pytest.fixture
def poisoned(checkpoint: Checkpoint, tmp_path: Path) -> Callable[[], Path]:  # noqa: F811
    """Makes a checkpoint whose logits are no numbers."""

    def make() -> Path:
        import torch
        import transformers

        source = checkpoint("gpt2-wide")
        model = transformers.AutoModelForCausalLM.from_pretrained(source)
        with torch.no_grad():
            model.transformer.ln_f.weight.fill_(float("nan"))
        model.save_pretrained(tmp_path)
        transformers.AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path)
        return tmp_path

    return make


def test_given_logits_that_are_no_numbers_when_generated_then_the_request_fails(
    poisoned: Callable[[], Path],
) -> None:
    engine = made(poisoned())
    engine.start()
    answer = outcomes(engine, [request("a", PROMPT)])["a"]
    engine.close()
    assert isinstance(answer, Failed)
    assert (answer.code, answer.retriable) == ("not_finite", False)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("gpt2", "does not run it"),  # heads of 16
        ("missing", "does not exist"),
    ],
)
def test_given_a_model_that_vllm_can_not_run_when_started_then_it_says_so_and_leaves_nothing(
    checkpoint: Checkpoint,  # noqa: F811
    tmp_path: Path,
    kind: str,
    said: str,
) -> None:
    folder = checkpoint("gpt2") if kind == "gpt2" else tmp_path / kind
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ModelLoadError, match=said):
        made(folder).start()
    left = set(psutil.Process().children(recursive=True)) - before
    assert [one for one in left if "VLLM" in " ".join([one.name(), *one.cmdline()])] == []
