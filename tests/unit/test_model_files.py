"""A model's files, looked up in folders laid out as Hugging Face lays them out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.errors import UsageError
from producer.doctor.model import complete_check, model_checks
from producer.model_files import (
    canonical_model,
    chat_template_state,
    find_model,
    hub_cache,
    is_complete,
    is_encoder_decoder,
    unpacked_bytes,
    weights_bytes,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def write(folder: Path, **files: Any) -> Path:
    """Files by name, `__` for the dot; values other than bytes and text as JSON."""
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def complete(folder: Path, **changes: Any) -> Path:
    files = {"config__json": {}, "model__safetensors": b"12345", "tokenizer__json": {}}
    return write(
        folder, **{name: value for name, value in {**files, **changes}.items() if value is not None}
    )


def snapshot(cache: Path, revision: str, age: int = 0) -> Path:
    folder = complete(cache / "models--org--name" / "snapshots" / revision)
    moment = 1_700_000_000 - age
    os.utime(folder, (moment, moment))
    return folder


@pytest.mark.parametrize(
    "model",
    [
        "gpt2",
        "openai-community/gpt2",
        "org/na.me_1",
        "llama3:8b",
        "/models/on/the/worker",
        "org/name:Q4_K_M/model.gguf",
    ],
)
def test_given_a_plausible_name_when_made_canonical_then_it_stays(cache: Path, model: str) -> None:
    assert canonical_model(model) == model


def test_given_a_folder_when_made_canonical_then_it_is_absolute_and_resolved(cache: Path) -> None:
    folder = complete(cache.parent / "models" / "mine")
    Path("link").symlink_to(folder)
    assert canonical_model("models/mine") == str(folder.resolve())
    assert canonical_model("./link/") == str(folder.resolve())


def test_given_a_gguf_file_when_made_canonical_then_it_is_resolved_as_long_as_it_is_called_so(
    cache: Path,
) -> None:
    file = cache.parent / "models" / "tiny.gguf"
    write(file.parent, tiny__gguf=b"x", blob=b"x")
    Path("link.gguf").symlink_to(file)
    Path("cached.gguf").symlink_to(file.parent / "blob")
    assert canonical_model("models/tiny.gguf") == str(file.resolve())
    assert canonical_model("link.gguf") == str(file.resolve())
    assert canonical_model("cached.gguf") == str(cache.parent.resolve() / "cached.gguf")


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("", "give a hub id"),
        ("a\nb", "give a hub id"),
        ("a\0b", "give a hub id"),
        ("x" * 256, "give a hub id"),
        ("my model", "check the spelling"),
        ("org//name", "check the spelling"),
        ("org/", "check the spelling"),
        ("./gone", "no such folder: check the path or give a hub id"),
        ("../gone", "no such folder"),
        ("~/gone", "no such folder"),
        ("https://huggingface.co/org/name", "give the hub id alone"),
        ("weights.bin", "this is a file: give the folder that holds it, or a .gguf file"),
        ("here:a.gguf", "here is a folder here: give the file's path, here/a.gguf"),
    ],
)
def test_given_what_names_no_model_when_made_canonical_then_refused(
    cache: Path, model: str, part: str
) -> None:
    Path("weights.bin").write_text("x")
    Path("here").mkdir()
    with pytest.raises(UsageError) as caught:
        canonical_model(model)
    assert part in caught.value.message
    assert "\n" not in caught.value.message


def test_mistyped_path_is_refused_unless_the_hubs_model_is_cached(cache: Path) -> None:
    complete(Path("org/mine"))
    with pytest.raises(UsageError, match="model org/name: no such file or folder: org holds mine"):
        canonical_model("org/name")
    snapshot(cache, "0" * 40)
    assert canonical_model("org/name") == "org/name"


def test_mistyped_gguf_file_names_the_nearest(cache: Path) -> None:
    Path("tiny-q8.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"no such file: did you mean tiny-q8\.gguf\?"):
        canonical_model("tiny-q8_0.gguf")


def test_given_a_folder_that_may_not_be_entered_when_made_canonical_then_it_is_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", denied)
    with pytest.raises(UsageError, match="model a/b: Permission denied: let your user read it"):
        canonical_model("a/b")


def test_given_a_local_folder_when_looked_up_then_it_is_found(cache: Path) -> None:
    folder = complete(cache.parent / "mine")
    assert find_model("mine") == folder.resolve()
    assert find_model("org/name") is None


def test_given_a_gguf_file_when_looked_up_then_it_is_found_by_path_folder_and_hub_id(
    cache: Path,
) -> None:
    write(cache.parent / "mine", tiny__gguf=b"x")
    file = (cache.parent / "mine" / "tiny.gguf").resolve()
    assert find_model("mine") == find_model("mine/tiny.gguf") == file
    old = snapshot(cache, "aaa", age=100)
    snapshot(cache, "bbb")
    write(old, **{"Q4/m__gguf": b"x"})
    assert find_model("org/name:Q4/m.gguf") == old / "Q4" / "m.gguf"
    assert find_model("org/name:Q8/m.gguf") is None


def test_given_a_gguf_file_when_judged_then_its_header_tells(cache: Path) -> None:
    file = gguf_file(cache.parent / "tiny.gguf", template="{{ messages }}")
    assert chat_template_state("tiny.gguf") == "present"
    assert not is_encoder_decoder("tiny.gguf")
    assert is_complete(file) == []
    assert weights_bytes(file) == file.stat().st_size
    assert unpacked_bytes(file) == 2 * 12
    seq2seq = gguf_file(cache.parent / "t5.gguf", arch="t5")
    assert chat_template_state("t5.gguf") == "absent"
    assert is_encoder_decoder("t5.gguf")
    (several,) = is_complete(cache.parent)
    assert several == f"{cache.parent}: holds 2 GGUF files: give one of them, as {seq2seq}"
    part = file.rename(cache.parent / "m-00001-of-00002.gguf")
    assert is_complete(part)[0].startswith(f"{part}: one of several parts: join them")
    seq2seq.write_bytes(seq2seq.read_bytes()[:-40])
    assert "it was cut off: download it again" in is_complete(seq2seq)[0]
    seq2seq.write_bytes(b"GGUF")
    assert "it was cut off: download it again" in is_complete(seq2seq)[0]
    assert chat_template_state("t5.gguf") == "unknown"
    assert not is_encoder_decoder("t5.gguf")
    assert unpacked_bytes(seq2seq) == 0


@pytest.mark.parametrize("found", ["/elsewhere/m.gguf", "org/name:m.gguf"])
def test_given_a_gguf_file_that_is_not_here_when_the_doctor_looks_then_it_says_what_to_do(
    cache: Path, found: str
) -> None:
    (check,) = model_checks(found, "transformers")
    assert check.state == "warning"
    said = {
        "/elsewhere/m.gguf": "is no file of this machine",
        "org/name:m.gguf": "is not on this machine yet",
    }
    assert said[found] in check.finding
    if ":" in found:
        assert check.advice == "to have it before: hf download org/name m.gguf"


def test_given_a_gguf_file_when_the_doctor_looks_then_it_tells_what_it_takes_unpacked(
    cache: Path,
) -> None:
    file = gguf_file(cache.parent / "tiny.gguf")
    check = complete_check("m", file, 5 << 30, unpacked=20 << 30, free_memory=8 << 30)
    assert check.state == "warning"
    assert f"5.0 GiB of weights in {file}, 20.0 GiB when loaded, has no chat" in check.finding
    (found,) = model_checks("tiny.gguf", "transformers")
    assert found.state == "ok"


def gguf_file(file: Path, *, arch: str = "llama", template: str | None = None) -> Path:
    """Of twelve numbers."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(file, arch)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("t", np.zeros(12, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_given_snapshots_when_looked_up_then_main_wins_over_the_newest(cache: Path) -> None:
    old, new = snapshot(cache, "aaa", age=100), snapshot(cache, "bbb")
    assert find_model("org/name") == new
    write(cache / "models--org--name" / "refs", main="aaa\n")
    assert find_model("org/name") == old
    write(cache / "models--org--name" / "refs", main="ccc")
    assert find_model("org/name") == new
    write(cache / "models--org--name" / "refs", main="")
    assert find_model("org/name") == new


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "~/.cache/huggingface/hub"),
    ],
)
def test_given_an_environment_when_asked_then_the_cache_is_where_hugging_face_has_it(
    environment: dict[str, str], expected: str
) -> None:
    assert hub_cache(environment) == Path(expected).expanduser()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "absent"),
        ({"tokenizer_config__json": {"chat_template": "{{ x }}"}}, "present"),
        ({"tokenizer_config__json": {"chat_template": ""}}, "absent"),
        ({"tokenizer_config__json": {"chat_template": None}}, "absent"),
        (
            {"tokenizer_config__json": {"chat_template": [{"name": "default", "template": ""}]}},
            "present",
        ),
        (
            {"tokenizer_config__json": {"chat_template": [{"name": "rag", "template": ""}]}},
            "unknown",
        ),
        ({"tokenizer_config__json": {"chat_template": {"default": "x"}}}, "present"),
        ({"tokenizer_config__json": {"chat_template": {"rag": "x"}}}, "unknown"),
        ({"tokenizer_config__json": "{broken"}, "unknown"),
        ({"tokenizer_config__json": []}, "unknown"),
        ({"chat_template__jinja": "x"}, "present"),
        ({"chat_template__json": {"chat_template": "x"}}, "present"),
        ({"additional_chat_templates/rag__jinja": "x"}, "unknown"),
        ({"tokenizer__json": None}, "unknown"),
        ({"tekken__json": {}}, "unknown"),
        ({"model__gguf": b"x"}, "absent"),
        ({"model__gguf": b"x", "model__safetensors": None}, "unknown"),
    ],
)
def test_given_a_folder_when_asked_for_its_chat_template_then_the_state_is_told(
    cache: Path, files: dict[str, Any], expected: str
) -> None:
    complete(cache.parent / "mine", **files)
    assert chat_template_state("mine") == expected


def test_given_no_files_when_asked_for_a_chat_template_then_unknown(cache: Path) -> None:
    assert chat_template_state("org/name") == "unknown"


INDEX = "model__safetensors__index__json"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 5),
        ({"consolidated__safetensors": b"1" * 9}, 5),
        ({"model__safetensors": None, "a__safetensors": b"12", "b__safetensors": b"3"}, 3),
        ({"model__safetensors": None, "pytorch_model__bin": b"12"}, 2),
        ({"model__safetensors": None, "training_args__bin": b"12"}, 0),
        (
            {
                "model__safetensors": None,
                "m-1__safetensors": b"1234",
                "m-2__safetensors": b"56",
                "extra__safetensors": b"7",
                INDEX: {
                    "weight_map": {
                        "a": "m-1.safetensors",
                        "b": "m-2.safetensors",
                        "c": "m-1.safetensors",
                    }
                },
            },
            6,
        ),
        ({INDEX: "broken"}, 5),
    ],
)
def test_given_weights_when_sized_then_one_copy_counts(
    tmp_path: Path, files: dict[str, Any], expected: int
) -> None:
    assert weights_bytes(complete(tmp_path, **files)) == expected


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({}, []),
        ({"config__json": None}, ["config.json: missing: download the whole model"]),
        ({"config__json": "{"}, ["config.json: can't be read"]),
        ({"model__safetensors": None}, ["no weights (*.safetensors): download the whole model"]),
        (
            {"model__safetensors": None, "pytorch_model__bin": b"1"},
            ["only PyTorch .bin weights, which can run code: get its safetensors"],
        ),
        ({"model__safetensors": b""}, ["points nowhere or is empty: download the model again"]),
        ({"tokenizer__json": None}, ["no tokenizer (tokenizer.json)"]),
        (
            {INDEX: {"weight_map": {"a": "m-1.safetensors", "b": "model.safetensors"}}},
            ["m-1.safetensors is missing: download the model again"],
        ),
        ({INDEX: {}}, ["model.safetensors.index.json: can't be read"]),
    ],
)
def test_given_a_folder_when_judged_then_each_problem_is_one_line_with_a_way_out(
    tmp_path: Path, files: dict[str, Any], parts: list[str]
) -> None:
    problems = is_complete(complete(tmp_path, **files))
    assert len(problems) == len(parts)
    for problem, part in zip(problems, parts, strict=True):
        assert problem.startswith(str(tmp_path))
        assert part in problem


def test_given_an_interrupted_download_when_judged_then_the_dangling_link_is_told(
    tmp_path: Path,
) -> None:
    complete(tmp_path, model__safetensors=None)
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    (problem,) = is_complete(tmp_path)
    assert "model.safetensors: points nowhere or is empty" in problem
    assert weights_bytes(tmp_path) == 0


@pytest.mark.parametrize("name", ["nothere.gguf", "models/nothere.gguf"])
def test_given_a_gguf_file_that_is_not_there_when_named_then_it_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no such file: check the path; a file of the hub is"):
        canonical_model(name)


@pytest.mark.parametrize("name", ["/only/at/workers.gguf", "org/name:file.gguf"])
def test_given_a_gguf_file_elsewhere_when_named_then_it_stays_as_it_is(name: str) -> None:
    assert canonical_model(name) == name
