"""LoRA adapters from a line of a file to its result, through real workers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.acceptance.mill import Mill
from tests.support.checkpoints import Checkpoint
from tests.support.tiny_adapters import build_adapter, build_adapters, plain
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create

pytest.importorskip("worker.engine.transformers.engine")
pytest.importorskip("peft")

PROMPT = "The quick brown fox"
GREEDY = ["-p", "temperature=0", "-p", "max_tokens=12"]


class Adapted:
    """An installation, a tiny model, two adapters of it, and what PEFT says with each."""

    def __init__(self, mill: Mill, folder: Path, place: Path) -> None:
        import transformers
        from peft import PeftModel

        self.mill = mill
        mill.env["PROMPTMILL_ENGINE"] = "transformers"
        self.model = mill.model = str(folder)
        self.adapters = build_adapters("llama", folder, place)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        models: dict[str | None, Any] = {None: plain(folder)}
        for name, adapter in self.adapters.items():
            models[name] = PeftModel.from_pretrained(plain(folder), adapter)
        ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
        self.texts = {
            name: tokenizer.decode(
                model.generate(input_ids=ids, do_sample=False, max_new_tokens=12)[0][ids.shape[1] :]
            )
            for name, model in models.items()
        }

    @property
    def options(self) -> list[str]:
        given = [f"--adapter={name}={place}" for name, place in self.adapters.items()]
        return ["--model", self.model, "--dtype", "float32", *given]

    def file(self, *requests: dict[str, Any]) -> str:
        path = self.mill.folder / "requests.jsonl"
        path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in requests))
        return str(path)

    def digest(self, name: str) -> str:
        said = subprocess.run(
            "sha256sum adapter_config.json adapter_model.safetensors | sha256sum",
            shell=True,
            cwd=self.adapters[name],
            capture_output=True,
            text=True,
            check=True,
        )
        return said.stdout.split()[0]


@pytest.fixture
def adapted(embedded: Mill, checkpoint: Checkpoint, tmp_path: Path) -> Adapted:
    return Adapted(embedded, checkpoint("llama"), tmp_path / "adapters")


def test_given_lines_that_name_adapters_when_run_then_each_text_is_pefts_and_tells_its_adapter(
    adapted: Adapted,
) -> None:
    assert len(set(adapted.texts.values())) == 3
    file = adapted.file(
        {"prompt": PROMPT},
        {"prompt": PROMPT, "adapter": "fin"},
        {"prompt": PROMPT, "model": "law"},
        {"prompt": PROMPT, "model": adapted.model},
        {"prompt": PROMPT, "model": "fin", "params": {"adapter": "fin"}},
    )
    target = adapted.mill.folder / "out.jsonl"
    adapted.mill.run("run", file, *adapted.options, *GREEDY, "-o", str(target), "--provenance")
    used = [None, "fin", "law", None, "fin"]
    records = [orjson.loads(line) for line in target.read_bytes().splitlines()]
    assert [one["text"] for one in records] == [adapted.texts[name] for name in used]
    assert [one["params"].get("adapter") for one in records] == used
    digests = [None if name is None else adapted.digest(name) for name in used]
    assert [one["adapter"] for one in records] == digests

    batch = records[0]["id"].rpartition("-")[0]
    assert f"adapter    {digests[2]}\n" in adapted.mill.ok("status", f"{batch}-3")
    lines = adapted.mill.lines("results", batch, "--format", "openai")
    models = [one["response"]["body"]["model"] for one in lines]
    assert models == [name or adapted.model for name in used]


def test_given_a_job_of_an_adapter_when_replayed_then_it_is_loaded_and_compared(
    adapted: Adapted,
) -> None:
    file = adapted.file({"prompt": PROMPT, "model": "law"})
    batch = adapted.mill.json("run", file, *adapted.options, "-p", "max_tokens=12")["id"]
    law = adapted.adapters["law"]
    told = adapted.mill.json("replay", f"{batch}-1", "--adapter", f"law={law}")
    assert (told["same"], told["changed"]) == (True, [])
    assert told["stored"]["adapter"] == adapted.digest("law")

    lost = adapted.mill.run("replay", f"{batch}-1")
    assert lost.returncode == 2
    assert "it was made with adapter 'law'" in lost.stderr
    assert "give --adapter law=PATH" in lost.stderr

    other = f"law={adapted.adapters['fin']}"
    done = adapted.mill.run("replay", f"{batch}-1", "--adapter", other, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["changed"] == ["adapter"]


def test_given_an_adapter_for_the_whole_batch_when_a_line_wants_none_then_it_gets_the_plain_model(
    adapted: Adapted,
) -> None:
    file = adapted.file(
        {"prompt": PROMPT}, {"prompt": PROMPT, "adapter": ""}, {"prompt": PROMPT, "adapter": "law"}
    )
    done = adapted.mill.run(
        "run", file, *adapted.options, *GREEDY, "-p", "adapter=fin", "-o", "-",
        "--output-format", "jsonl",
    )  # fmt: skip
    records = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [one["text"] for one in records] == [adapted.texts[one] for one in ("fin", None, "law")]


def test_given_an_adapter_that_the_worker_has_not_when_run_then_the_job_fails_and_says_the_fix(
    adapted: Adapted,
) -> None:
    file = adapted.file({"prompt": PROMPT, "adapter": "tax"}, {"prompt": PROMPT})
    done = adapted.mill.run("run", file, *adapted.options, *GREEDY, "--json")
    assert done.returncode == 1
    batch = json.loads(done.stdout)["id"]
    (failed,) = adapted.mill.lines("results", batch, "--failed")
    assert failed["error"] == {
        "code": "unknown_adapter",
        "message": "this worker has no adapter 'tax' (loaded are fin, law): start every worker of "
        "the queue with --adapter tax=PATH, then retry",
    }
    (line, _) = adapted.mill.lines("results", batch, "--format", "openai")
    assert line["response"]["status_code"] == 400


def test_given_openai_lines_for_an_adapter_when_submitted_with_its_name_then_a_worker_runs_them(
    mill: Mill,
) -> None:
    body = {"prompt": PROMPT, "max_tokens": 3}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/completions",
         "body": {**body, "model": model}}
        for name, model in (("a", "fin"), ("b", mill.model))
    ]  # fmt: skip
    file = mill.folder / "openai.jsonl"
    file.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in lines))
    refused = mill.run("submit", str(file), "--model", mill.model)
    assert refused.returncode == 2
    assert "give --adapter if that is the name of a LoRA adapter" in refused.stderr
    submit = ["submit", str(file), "--model", mill.model, "--adapter", "fin", "--name", "once"]
    batch = mill.ok(*submit).strip()
    assert mill.ok(*submit).strip() == batch
    mill.worker(PROMPTMILL_ADAPTERS='{"fin": "anywhere"}')
    assert mill.finished(batch).succeeded == 2
    written = mill.lines("results", batch, "--format", "openai")
    assert [one["response"]["body"]["model"] for one in written] == ["fin", mill.model]
    (worker,) = mill.lines("workers", "--json")
    assert list(worker["adapters"]) == ["fin"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--adapter", "fin"], "'fin' is not key=value"),
        (["--adapter", "fin=./nowhere"], "adapter 'fin': ./nowhere: no such folder"),
        (["--adapter", "f n=."], "adapter 'f n': give 1 to 128 letters, digits and any of - _ ."),
        (["--adapter", "m=."], "adapter 'm': that is the model's own name"),
        (["--adapter", "fin=.", "--adapter", "fin=.."], "adapter 'fin' is given twice"),
        (["--adapter", "fin=.", "--engine", "openai"], "engine 'openai' can't load adapters (fin)"),
    ],
)
@pytest.mark.parametrize("command", ["run", "worker"])
def test_given_a_bad_adapter_option_when_started_then_one_line_says_so(
    embedded: Mill, command: str, given: list[str], reason: str
) -> None:
    files = [embedded.prompts(["one"])] if command == "run" else []
    done = embedded.run(command, *files, "--model", "m", *given)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert embedded.client.batches() == []


def no_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    no_weights(folder)


def cut_off(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def configured(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def weighted(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return rewrite


Q = "base_model.model.model.layers.0.self_attn.q_proj"


def not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{Q}.lora_A.weight"][0, 0] = torch.nan


def elsewhere(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{Q}2.lora_A.weight"] = tensors.pop(f"{Q}.lora_A.weight")
    tensors[f"{Q}2.lora_B.weight"] = tensors.pop(f"{Q}.lora_B.weight")


def narrow(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{Q}.lora_A.weight"] = tensors[f"{Q}.lora_A.weight"][:, :8].contiguous()


def halved(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[f"{Q}.lora_B.weight"]


def dora(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{Q}.lora_magnitude_vector"] = torch.ones(64)


def head(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.ones(4, 64)
    tensors["base_model.model.lm_head.lora_B.weight"] = torch.ones(512, 4)


def embedding(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.ones(4, 512)


def huge(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{Q}.lora_B.weight"] = torch.full_like(tensors[f"{Q}.lora_B.weight"], 1e30)
    tensors[f"{Q}.lora_A.weight"] = torch.full_like(tensors[f"{Q}.lora_A.weight"], 1e30)


SPOILT: list[tuple[Callable[[Path], None], str]] = [
    (no_config, "has no adapter_config.json in"),
    (no_weights, "has no adapter_model.safetensors in"),
    (pickled, "holds only pickled weights (adapter_model.bin), which can run code when loaded"),
    (cut_off, "has an adapter_model.safetensors that can't be read"),
    (configured(use_dora=True), "has use_dora, which can't be used: only plain LoRA can"),
    (configured(bias="all"), "has bias='all': only 'none' can be used"),
    (configured(modules_to_save=["norm"]), "has modules_to_save, which can't be used"),
    (configured(peft_type="IA3"), "is of the kind 'IA3': only LORA can be used"),
    (configured(init_lora_weights="pissa"), "began with init_lora_weights='pissa'"),
    (configured(a_new_field=[1]), "has a_new_field, which can't be used"),
    (configured(r=0), "has an adapter_config.json that can't be read (a rank is 0)"),
    (configured(r=9), "which has (64, 64) and rank 9: it was made for another model"),
    (configured(rank_pattern={"(": 3}), "has an adapter_config.json that can't be read"),
    (weighted(not_a_number), "holds NaN or infinity in"),
    (weighted(elsewhere), "is for a layer 'model.layers.0.self_attn.q_proj2', which model"),
    (weighted(narrow), "has matrices (4, 8) and (64, 4) for layer"),
    (weighted(halved), "lacks one of the two matrices of layer"),
    (weighted(dora), "(DoRA), which can't be used"),
    (weighted(head), "is for the output layer 'lm_head', which can't be used"),
    (weighted(embedding), "(an embedding), which can't be used"),
    (weighted(huge), "makes numbers of the model not finite"),
]


def test_given_a_spoilt_adapter_when_loaded_then_one_line_names_it_and_the_reason(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from db.errors import ModelLoadError

    sound = build_adapter(
        checkpoint("llama"), tmp_path / "sound", r=4, target_modules=["q_proj", "v_proj"]
    )
    for number, (spoil, reason) in enumerate(SPOILT):
        folder = Path(shutil.copytree(sound, tmp_path / str(number)))
        spoil(folder)
        config = EngineConfig(
            str(checkpoint("llama")), "cpu", "float32", adapters={"fin": str(folder)}
        )
        with pytest.raises(ModelLoadError) as caught:
            create("transformers", config).start()
        assert caught.value.message.startswith("adapter 'fin' "), reason
        assert reason in caught.value.message
        assert "\n" not in caught.value.message


def test_given_a_spoilt_adapter_when_run_then_one_line_says_so_and_nothing_is_left(
    adapted: Adapted,
) -> None:
    no_weights(Path(adapted.adapters["law"]))
    done = adapted.mill.run("run", adapted.file({"prompt": PROMPT}), *adapted.options)
    assert done.returncode == 2
    assert "adapter 'law' has no adapter_model.safetensors in" in done.stderr
    assert "Traceback" not in done.stderr
    assert adapted.mill.client.batches() == []
