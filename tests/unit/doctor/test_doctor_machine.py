"""What the doctor finds on this machine: folders, torch, a model's files."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from db.settings import Settings
from producer.doctor import devices, machine
from producer.doctor.devices import device_checks
from producer.doctor.machine import disk_checks, memory_checks
from producer.doctor.model import complete_check, model_checks

Partition = namedtuple("Partition", "mountpoint fstype")


def test_given_a_home_that_is_not_there_when_looking_then_its_disk_is_measured(
    tmp_path: Path,
) -> None:
    (check,) = disk_checks(Settings(home=tmp_path / "a" / "b"))
    assert check.name == "disk"
    assert check.finding.endswith(f"free for {tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_given_a_home_that_is_not_writable_when_looking_then_it_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (check,) = disk_checks(Settings(home=tmp_path))
    assert (check.state, check.finding) == ("error", f"{tmp_path} is not writable")
    assert check.advice == "set PROMPTMILL_HOME to a folder of your own"


def test_given_a_home_on_a_network_disk_when_looking_then_sqlite_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [Partition("/", "ext4"), Partition(str(tmp_path.parent), "nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    first, second = disk_checks(Settings(home=tmp_path))
    assert first.state == "warning"
    assert "network file system (nfs4)" in first.finding
    assert second.finding.endswith(f"free for {tmp_path}")


def test_given_this_machine_when_its_memory_is_measured_then_it_has_some() -> None:
    (check,) = memory_checks()
    assert check.finding.endswith(" GiB free")


def test_given_torch_here_when_asked_then_version_and_threads_are_told() -> None:
    if find_spec("torch") is None:
        pytest.skip("needs the extra 'worker'")
    version = metadata.version("torch").partition("+")[0]
    (check,) = device_checks(Settings())
    assert check.state in ("ok", "warning")
    assert check.finding.startswith(f"torch {version}")
    assert " threads" in check.finding


def test_given_no_torch_when_asked_then_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    (check,) = device_checks(Settings())
    assert (check.state, check.finding, check.advice) == (
        "warning",
        "torch is not installed: this machine can submit but not generate",
        "pip install -e '.[worker]' -c constraints.txt in promptmill's folder",
    )


def test_given_a_torch_that_breaks_at_its_import_when_asked_then_its_last_word_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "_PROBE", "raise ImportError('libcudart.so: no such file')")
    (check,) = device_checks(Settings())
    assert check.state == "error"
    assert check.finding == "torch does not start: ImportError: libcudart.so: no such file"


def test_given_a_torch_that_is_killed_when_asked_then_its_exit_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "_PROBE", "import os; os.kill(os.getpid(), 9)")
    (check,) = device_checks(Settings())
    assert check.finding == "torch does not start: it ended with -9"


def test_given_the_echo_engine_when_looking_then_neither_device_nor_files_are_needed() -> None:
    (device,) = device_checks(Settings(engine="echo"))
    (model,) = model_checks("org/model", "echo")
    assert (device.state, model.state) == ("ok", "ok")


@pytest.mark.parametrize("installed", [True, False])
def test_given_the_engine_keras_when_looking_then_its_library_counts_and_torch_does_not(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    there = {"keras_hub", "transformers"} if installed else {"torch", "transformers"}
    monkeypatch.setattr(devices, "find_spec", lambda name: name if name in there else None)
    (check,) = device_checks(Settings(engine="keras"))
    if installed:
        assert check.state == "ok"
    else:
        assert check.finding.startswith("keras_hub is not installed")
        assert check.advice == "pip install -e '.[keras]' -c constraints.txt in promptmill's folder"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, as far as names go."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"x" * 1000)
    (made / "tokenizer.json").write_text("{}")
    (made / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return made


def test_given_a_whole_model_when_looking_then_its_size_and_chats_are_told(folder: Path) -> None:
    (check,) = model_checks(str(folder), "transformers")
    assert check.state == "ok"
    assert check.finding == f"{folder}: 0.0 GiB of weights in {folder}, takes chats"


def test_given_a_model_larger_than_memory_when_looking_then_it_is_a_warning(folder: Path) -> None:
    check = complete_check("m", folder, 20 << 30, free_memory=8 << 30)
    assert check.state == "warning"
    assert "only 8.0 GiB of memory are free" in check.finding


def test_given_a_model_with_files_missing_when_looking_then_each_is_an_error(
    folder: Path,
) -> None:
    (folder / "config.json").unlink()
    (folder / "tokenizer.json").unlink()
    checks = list(model_checks(str(folder), "transformers"))
    assert [check.state for check in checks] == ["error", "error"]
    assert "config.json: missing" in checks[0].finding


@pytest.mark.parametrize(
    ("model", "offline", "state", "finding"),
    [
        ("org/model", "", "warning", "a worker here downloads it when it starts"),
        ("org/model", "1", "error", "HF_HUB_OFFLINE forbids downloading it"),
        ("/models/elsewhere", "", "warning", "is no folder of this machine"),
    ],
)
def test_given_a_model_that_is_not_here_when_looking_then_it_says_what_will_happen(
    model: str,
    offline: str,
    state: str,
    finding: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    (check,) = model_checks(model, "transformers")
    assert check.state == state
    assert finding in check.finding


def test_given_the_root_folder_when_looking_for_what_exists_then_it_is_found() -> None:
    assert machine._existing(Path("/no/such/folder")) == Path("/")
