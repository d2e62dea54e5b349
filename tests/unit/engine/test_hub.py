"""The hub is asked once, quickly, before a model library is imported."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from db.errors import ModelLoadError, ModelUnavailable
from tests.support.hub import AWAY, serving
from worker.engine.protocol import EngineConfig
from worker.engine.shared import hub

MODEL = "org/model"
COMMIT = "0" * 40
INFO: dict[str, Any] = {
    "id": MODEL,
    "sha": COMMIT,
    "siblings": [
        {"rfilename": "config.json", "size": 10},
        {"rfilename": "model-00001-of-00002.safetensors", "size": 300},
        {"rfilename": "model-00002-of-00002.safetensors", "size": 200},
        {"rfilename": "consolidated.safetensors", "size": 500},
        {"rfilename": "original/model.safetensors", "size": 500},
        {"rfilename": "model-Q4_K_M.gguf", "size": 70},
    ],
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine that may go online."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", AWAY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return tmp_path


def cached(cache: Path, *files: str) -> None:
    """Put empty files into the cache as the main branch."""
    repository = cache / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in files:
        path = repository / "snapshots" / COMMIT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def test_model_is_unavailable_at_once_where_hub_is_away(cache: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ModelUnavailable) as failure:
        hub.look(EngineConfig(model=MODEL))
    assert time.monotonic() - begun < hub.TIMEOUT
    assert failure.value.exit_code == 1
    assert failure.value.message.startswith(
        f"model '{MODEL}' is neither a folder nor in the cache of this machine, and {AWAY} can't "
        "be reached ("
    )
    assert "\n" not in failure.value.message


def test_path_into_a_folder_of_models_is_no_hub_id(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cache)
    Path("org").mkdir()
    Path("org/modell.gguf").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"no such file or folder: did you mean org/modell"):
        hub.look(EngineConfig(model=MODEL))
    cached(cache, "config.json")
    assert hub.look(EngineConfig(model=MODEL)) is None


def test_cached_model_is_served_offline_where_hub_is_away(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached(cache, "config.json")
    with caplog.at_level(logging.WARNING):
        assert hub.look(EngineConfig(model=MODEL)) is None
    assert constants.HF_HUB_OFFLINE is True
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert [record.getMessage() for record in caplog.records] == [
        f"{AWAY} can't be reached: the copy in the cache serves {MODEL}"
    ]


def test_model_not_in_cache_is_refused_offline(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE forbids") as failure:
        hub.look(EngineConfig(model=MODEL))
    assert failure.value.exit_code == 2


@pytest.mark.parametrize(
    ("answer", "revision", "message"),
    [
        ("RepoNotFound", None, "neither a folder nor on the hub"),
        ("GatedRepo", None, "is gated"),
        ("RevisionNotFound", "v9", "has no revision 'v9' on the hub"),
    ],
)
def test_what_the_hub_refuses_is_refused_by_name(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    revision: str | None,
    message: str,
) -> None:
    with serving({MODEL: answer}) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        with pytest.raises(ModelLoadError, match=message) as failure:
            hub.look(EngineConfig(model=MODEL, revision=revision))
    assert failure.value.exit_code == 2


@pytest.mark.parametrize(("model", "total"), [(MODEL, 500), (f"{MODEL}:model-Q4_K_M.gguf", 70)])
def test_download_counts_the_weights_that_are_missing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, model: str, total: int
) -> None:
    blobs = cache / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "earlier").write_bytes(b"x" * 40)
    with serving({MODEL: INFO}) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        download = hub.look(EngineConfig(model=model))
    assert download is not None
    assert (download.total, download.done()) == (total, 0)
    (blobs / "now.incomplete").write_bytes(b"x" * 25)
    assert download.done() == 25


def test_nothing_is_downloaded_of_a_model_in_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(cache, "config.json", *(entry["rfilename"] for entry in INFO["siblings"]))
    with serving({MODEL: INFO}) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        assert hub.look(EngineConfig(model=MODEL)) is None
    assert constants.HF_HUB_OFFLINE is False


def test_folder_never_asks_the_hub(cache: Path, tmp_path: Path) -> None:
    assert hub.look(EngineConfig(model=str(tmp_path))) is None
