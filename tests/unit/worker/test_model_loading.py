"""A model that is being loaded is reported at once, and then now and then."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from db.errors import ModelLoadError
from db.settings import Settings
from tests.support.processes import eventually
from worker import loading
from worker.engine.protocol import EngineConfig
from worker.engine.shared import load_progress
from worker.engine.shared.hub import Download
from worker.engine.shared.load_progress import Counted, share_read


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_loading_is_said_at_once_with_the_size(
    tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(1_500_000_000)
    with loading.LoadingReport("echo", EngineConfig(model=str(tmp_path))):
        assert told.messages == [f"loading {tmp_path} (1.5 GB of weights)"]


def test_loading_is_said_again_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "_FIRST", 0.01)
    monkeypatch.setattr(loading, "_NEXT", 0.01)
    with loading.LoadingReport("echo", EngineConfig(model="org/model")):
        eventually(lambda: len(told.messages) >= 3, what="it is said again")
    assert told.messages[0] == "loading org/model"
    assert told.messages[1] == "loading org/model: 0 s so far"


def test_download_is_reported_in_gigabytes_and_percent(
    tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "part").touch()
    report = loading.LoadingReport("echo", EngineConfig(model="org/model"))
    report.expect(Download(tmp_path, total=4_000_000_000, before=0))
    assert told.messages[-1] == "loading org/model: 4.0 GB to download"
    with (tmp_path / "part").open("wb") as file:
        file.truncate(1_000_000_000)
    assert report.stage() == "downloaded 1.0 of 4.0 GB (25%)"


def test_weights_are_reported_in_percent_while_they_are_read() -> None:
    report = loading.LoadingReport("echo", EngineConfig(model="org/model"))
    seen = [report.stage() for _ in Counted(["a", "b", "c", "d"])]
    assert seen == [f"{percent}% of the weights are in memory" for percent in (0, 25, 50, 75)]
    assert share_read() is None


def test_transformers_counts_through_the_hook() -> None:
    from transformers.utils import logging as transformers_logging

    load_progress.watch_loading(transformers_logging)
    bar = transformers_logging.tqdm({"a": 1, "b": 2}.items(), desc="Loading weights")
    assert [share_read() for _ in bar] == [0.0, 0.5]


def test_folder_that_is_no_checkpoint_is_refused_before_torch(tmp_path: Path) -> None:
    config = Settings(model=str(tmp_path), engine="transformers")
    with pytest.raises(ModelLoadError, match=r"has no config\.json") as failure:
        loading.load_engine(config, str(tmp_path))
    assert failure.value.exit_code == 2
