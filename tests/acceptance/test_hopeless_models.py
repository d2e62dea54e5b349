"""A model that can't be loaded is refused within seconds, in one line, with the right exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.mill import Mill
from tests.support.hub import AWAY


@pytest.fixture
def offline(embedded: Mill, tmp_path: Path) -> Mill:
    """No hub is reachable, and nothing is in the cache."""
    embedded.env |= {
        "PROMPTMILL_ENGINE": "transformers",
        "HF_ENDPOINT": AWAY,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }
    return embedded


def test_run_of_unreachable_hub_model_ends_with_the_reason(offline: Mill) -> None:
    done = offline.run("run", offline.numbered(1), "--model", "nobody/nothing")
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first == "loading nobody/nothing"
    assert "nobody/nothing' is neither a folder nor in the cache" in last
    assert offline.client.batches() == []


def test_run_of_lines_that_name_an_unreachable_model_says_how_to_go_on(offline: Mill) -> None:
    body = {"model": "gpt-9", "messages": [{"role": "user", "content": "Hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = offline.prompts([json.dumps(line)], "requests.jsonl")
    done = offline.run("run", file)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("promptmill: the worker could not start: model 'gpt-9' is neither")
    assert last.endswith(
        "; the lines name this model: for another one, give --model M --ignore-line-model; for "
        "OpenAI's API, give --engine openai"
    )
    assert offline.client.batches() == []


def test_worker_of_unreachable_hub_model_exits_with_1(offline: Mill) -> None:
    offline.client.batches()  # the embedded schema is there
    done = offline.run("worker", "--model", "nobody/nothing")
    assert done.returncode == 1
    loading, reason = done.stderr.splitlines()
    assert loading.endswith("action=loading engine=transformers")
    assert reason.startswith("promptmill worker: model 'nobody/nothing' is neither")


@pytest.mark.parametrize("files", [None, (), ("config.json",)], ids=["absent", "empty", "config"])
def test_run_refuses_hopeless_folder_before_it_queues(
    offline: Mill, tmp_path: Path, files: tuple[str, ...] | None
) -> None:
    folder = tmp_path / "model"
    if files is not None:
        folder.mkdir()
        for name in files:
            (folder / name).write_text("{}")
    done = offline.run("run", offline.numbered(1), "--model", str(folder))
    assert done.returncode == 2
    assert str(folder) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert offline.client.batches() == []


def test_worker_of_folder_without_checkpoint_exits_with_2(offline: Mill, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    done = offline.run("worker", "--model", str(tmp_path / "model"))
    assert done.returncode == 2
    assert "has no config.json" in done.stderr.splitlines()[-1]
