"""A GGUF file as a model, from the command line to the results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.acceptance.mill import Mill
from tests.support.gguf_files import build_llm, write_gguf

pytest.importorskip("gguf")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = build_llm("qwen2", tmp_path / "made")
    return write_gguf(folder, tmp_path / "tiny.gguf")


@pytest.fixture
def mill(embedded: Mill) -> Mill:
    embedded.env["PROMPTMILL_ENGINE"] = "transformers"
    return embedded


def test_given_a_gguf_file_when_run_then_its_results_tell_of_it_and_are_replayed(
    mill: Mill, file: Path
) -> None:
    asked = mill.folder / "chat.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8},
        {"prompt": "Hello there", "max_tokens": 8, "temperature": 1.0, "seed": 7},
    ]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = mill.json("run", str(asked), "--model", str(file), "--dtype", "float32")
    assert run["counts"]["succeeded"] == 2
    made = mill.job(run["id"], 2).provenance
    assert made is not None
    assert made.model == str(file.resolve())
    assert made.revision is not None
    assert len(made.revision) == 12
    line = f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
    assert made.weights == hashlib.sha256(line.encode()).hexdigest()
    assert made.tokenizer is None
    for number in (1, 2):
        told = mill.json("replay", f"{run['id']}-{number}")
        assert (told["same"], told["changed"]) == (True, [])
    said = mill.run("doctor", "--model", str(file), "--json").stdout
    assert "takes chats" in said
    assert f"of weights in {file.resolve()}, " in said

    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    done = mill.run("run", str(asked), "--model", str(file), "--fresh")
    assert done.returncode != 0
    assert str(file.resolve()) in done.stderr
    assert "it was cut off: download it again" in done.stderr


def test_given_packed_weights_when_run_then_a_replay_packs_them_too(
    mill: Mill, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = build_llm("qwen2", tmp_path / "made")
    asked = mill.prompts(["Hello there"])
    packing = {"PROMPTMILL_ENGINE_OPTIONS": '{"quantization": "bnb-4bit"}'}
    command = ("run", asked, "--model", str(folder), "--dtype", "float32", "--json")
    batch = json.loads(mill.run(*command, env=packing).stdout)["id"]
    made = mill.job(batch, 1).provenance
    assert made is not None
    assert made.dtype == "float32, bnb-4bit"
    told = mill.json("replay", f"{batch}-1")
    assert (told["same"], told["changed"]) == (True, [])
