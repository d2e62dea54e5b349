"""What `run` must never do: overwrite its input, or pass one engine's texts off as another's."""

from __future__ import annotations

import time
from pathlib import Path

from db.states import BatchState
from tests.acceptance.mill import Mill, echoing
from tests.support.processes import promptmill


def test_given_an_output_that_is_the_input_when_run_then_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "same.jsonl"
    file.write_text('{"prompt": "a b"}\n')
    done = promptmill("run", str(file), "--model", "m", "--engine", "echo", "-o", str(file))
    assert done.returncode == 2
    assert f"{file} is an input" in done.stderr
    assert file.read_text() == '{"prompt": "a b"}\n'


def test_given_another_engine_when_run_then_it_is_another_batch(embedded: Mill) -> None:
    """Texts of one engine or dtype must not pass for those of another."""
    arguments = ("run", embedded.numbered(2), "--model", embedded.model)
    first = embedded.json(*arguments)
    other = embedded.json(*arguments, "--dtype", "float32")
    again = embedded.json(*arguments, "--dtype", "float32")
    assert first["id"] != other["id"] == again["id"]


def test_given_an_older_batch_of_the_same_model_when_run_then_only_its_own_prompts_run(
    embedded: Mill,
) -> None:
    """No waiting behind what somebody else has queued, and no word of it left half done."""
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = echoing(faults=True)
    old = embedded.ok("submit", embedded.prompts(["[[hang]]"]), "--model", embedded.model).strip()
    begun = time.monotonic()
    mine = embedded.json("run", embedded.numbered(30, "mine.txt"), "--model", embedded.model)
    assert mine["counts"]["succeeded"] == 30
    assert time.monotonic() - begun < embedded.client.settings.grace
    assert embedded.client.batch(old).state == BatchState.QUEUED


def test_given_another_worker_of_the_model_when_run_in_another_way_then_it_is_told(
    mill: Mill,
) -> None:
    mill.worker()
    done = mill.run(
        "run", mill.numbered(3), "--model", mill.model, "--engine", "echo", "--dtype", "float32"
    )
    assert done.returncode == 0, done.stderr
    assert f"serves {mill.model} too, with engine echo" in done.stderr
    assert "it shares this batch" in done.stderr


def test_given_an_engine_that_is_not_installed_when_another_worker_has_begun_then_run_ends(
    mill: Mill,
) -> None:
    """Another worker's beginning says nothing of ours, which can't be mended by a new one."""
    mill.worker(echoing(faults=True))
    prompts = mill.prompts(["[[hang]]"])
    done = mill.run("run", prompts, "--model", mill.model, "--engine", "vllm")
    assert done.returncode == 2
    assert "engine 'vllm' needs the package" in done.stderr
    assert "takes its place" not in done.stderr
