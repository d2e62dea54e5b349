"""What people see in terminals of two sizes: nothing is cut where it would mislead."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from rich.cells import cell_len

from db.queries import workers
from tests.acceptance.mill import Mill, echoing
from tests.support.stored import a_batch, a_claim, a_worker
from tests.support.terminal import Terminal

SIZES = [(80, 24), (140, 40)]

#: As long as a hub's snapshot in somebody's home.
MODEL = "/home/someone/.cache/huggingface/hub/models--org--name/snapshots/Large-Model-70B-Instruct"
WORKER = "gpu-node-17.cluster.example.org:1234567:a1b2c3"


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    found: tuple[int, int] = request.param
    return found


@pytest.fixture
def stored(embedded: Mill) -> Mill:
    """Two batches with long names, and a busy worker with a long one."""
    database = embedded.client.database
    queue = "promptmill.large"
    batch = a_batch(database, 1234, name="nightly", model=MODEL, queue=queue, chunk_size=400)
    a_batch(database, 40, name="run " + "/data/prompts" * 8 + ".jsonl", model=MODEL)
    worker = a_worker(database, name=WORKER, model=MODEL, queue=queue, device="cuda:0", capacity=64)
    a_claim(database, worker, queue=queue)
    with database.write() as connection:
        values = {"in_flight": 64, "tokens_per_second": 12_345.6, "jobs": 120_000}
        workers.beat(connection, worker, values)
    assert embedded.client.batch("nightly").id == batch.id
    embedded.env["PROMPTMILL_LEASE"] = "600"
    return embedded


def screen(mill: Mill, size: tuple[int, int], *arguments: str) -> str:
    """All that `promptmill ARGUMENTS` shows in such a terminal."""
    columns, lines = size
    with Terminal(*arguments, env=mill.env, columns=columns, lines=lines) as terminal:
        return terminal.ended()


def check_width(text: str, columns: int) -> None:
    """The terminal breaks no line but one that is a single long word."""
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        continues = following[:1] not in ("", " ") and not following.startswith("look")
        full = cell_len(line) == columns and continues
        assert not full or " " not in line.strip(), line


def test_list_shows_whole_counts_and_the_end_of_a_model(
    stored: Mill, size: tuple[int, int]
) -> None:
    text = screen(stored, size, "list")
    title, second, first = text.splitlines()
    assert title.split()[:1] == ["batch"]
    assert "0/1,234" in first
    assert "nightly" in first
    for line in (first, second):
        assert cell_len(line) <= size[0]
        assert re.search(r"…\S*-Instruct|/home\S*-Instruct", line), line
    assert ("created" in title) == (size[0] == 140)


def test_workers_shows_load_and_speed_whole(stored: Mill, size: tuple[int, int]) -> None:
    title, line = screen(stored, size, "workers").splitlines()
    assert {"worker", "model", "state", "running", "tok/s"} <= set(title.split())
    assert "64/64" in line
    assert "12,346" in line
    assert "…" in line
    assert cell_len(line) <= size[0]
    assert ("engine" in title) == (size[0] == 140)


def test_worker_that_stops_is_shown_as_stopping(stored: Mill, size: tuple[int, int]) -> None:
    with stored.client.database.write() as connection:
        key = workers.find(connection, WORKER)
        assert key is not None
        values = {"in_flight": 64, "tokens_per_second": 0.0}
        workers.beat(connection, key, values, stops_within=600)
    _, line = screen(stored, size, "workers").splitlines()
    assert re.search(r"stops within [1-9]\d\d s +64/64 .* –", line), line
    assert cell_len(line) <= size[0]
    with Terminal("watch", "nightly", env=stored.env, columns=size[0], lines=size[1]) as terminal:
        terminal.wait_for(lambda text: "its worker stops within" in text, what="the end")
        assert "no worker serves it yet" in terminal.text()
        terminal.interrupt()
        terminal.ended()


def test_ctrl_c_leaves_nothing_of_a_live_display_as_wide_as_the_terminal(embedded: Mill) -> None:
    batch = a_batch(embedded.client.database, 300, model=MODEL)
    with Terminal("watch", batch.id, env=embedded.env, columns=80, lines=24) as terminal:
        terminal.wait_for(lambda text: "waiting for a worker" in text, what="waiting")
        terminal.interrupt()
        text = terminal.ended()
    assert "0/300" not in text
    assert "waiting for a worker" not in text


def test_status_and_doctor_break_lines_at_spaces(stored: Mill, size: tuple[int, int]) -> None:
    status = screen(stored, size, "status", "nightly")
    assert re.search(r"^now +12,346 tok/s, on 1 worker$", status, re.MULTILINE), status
    check_width(screen(stored, size, "doctor"), size[0])


def test_remarks_on_failures_are_broken_at_spaces(
    embedded: Mill, size: tuple[int, int], tmp_path: Path
) -> None:
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = echoing(faults=True)
    file = embedded.prompts(["one [[fail]]", "two"])
    output = str(tmp_path / "out.jsonl")
    embedded.run("run", file, "--model", embedded.model, "-o", output)
    (batch,) = embedded.lines("list", "--json")
    for command in ("status", "watch"):
        text = screen(embedded, size, command, batch["id"])
        (index,) = [text.index(line) for line in text.splitlines() if "failed with" in line]
        remark = text[index:].rstrip()
        assert " ".join(remark.split()).endswith("the prompt asked for the fault [[fail]]")
        assert len(remark.splitlines()) == (2 if size[0] == 80 else 1)
        check_width(remark, size[0])


def test_run_shows_loading_then_progress_and_the_last_word(
    embedded: Mill, size: tuple[int, int], tmp_path: Path
) -> None:
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = echoing(latency=0.3, capacity=8)
    file = embedded.prompts([f"prompt {number}" for number in range(200)])
    arguments = ["run", file, "--model", embedded.model, "-o", str(tmp_path / "out.jsonl")]
    with Terminal(*arguments, env=embedded.env, columns=size[0], lines=size[1]) as terminal:
        terminal.wait_for(lambda text: f"loading {embedded.model}" in text, what="loading")
        shown = terminal.wait_for(
            lambda text: re.search(r"━.* [1-9]\d*/200 +\d+ %", text),
            what="progress",
        )
        assert all(cell_len(line) <= size[0] for line in shown.splitlines())
        left = terminal.wait_for(lambda text: "left" in text, what="an estimate")
        assert re.search(r"about \d+ s left", left)
        text = terminal.ended()
    assert terminal.process.returncode == 0
    assert "200 of 200 succeeded" in text
    assert "━" not in text  # the bar is gone
    assert f"loading {embedded.model}" not in text


def test_watch_shows_a_missing_worker_and_ctrl_c_says_how_to_continue(
    embedded: Mill, size: tuple[int, int]
) -> None:
    batch = a_batch(embedded.client.database, 300, model=MODEL)
    with Terminal("watch", batch.id, env=embedded.env, columns=size[0], lines=size[1]) as terminal:
        shown = terminal.wait_for(lambda text: "waiting for a worker" in text, what="waiting")
        assert "0/300" in shown
        assert all(cell_len(line) <= size[0] for line in shown.splitlines())
        terminal.interrupt()
        text = terminal.ended()
    assert terminal.process.returncode == 128 + signal.SIGINT
    words = " ".join(text.split())
    assert words.endswith(
        "0 of 300 done (0 %); Ctrl-C ended the waiting, not the batch "
        f"follow it again: promptmill watch {batch.id}"
    )


def test_ctrl_c_in_a_run_answers_at_once_and_while_it_loads_ends_soon(embedded: Mill) -> None:
    file = embedded.prompts(["one", "two"])
    with Terminal("run", file, "--model", embedded.model, env=embedded.env) as terminal:
        terminal.wait_for(lambda text: "loading" in text, what="loading")
        terminal.interrupt()
        terminal.wait_for(lambda text: "stopping" in text, what="an answer")
        text = terminal.ended(20)  # of a grace of 30
    assert terminal.process.returncode == 128 + signal.SIGINT
    assert " ".join(text.split()).endswith("0 of 2 done (0 %); run the same command to continue")


def test_run_without_a_terminal_logs_each_tenth(embedded: Mill, tmp_path: Path) -> None:
    embedded.env["PROMPTMILL_ENGINE_OPTIONS"] = echoing(latency=0.5, capacity=2)
    file = embedded.prompts([f"prompt {number}" for number in range(40)])
    done = embedded.run("run", file, "--model", embedded.model, "-o", str(tmp_path / "o.jsonl"))
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^\d\d:\d\d:\d\d b\w{11}: \d+ of 40 done \(\d+ %\)", done.stderr, re.MULTILINE
    )


def test_paused_batch_is_said_to_be_paused(embedded: Mill) -> None:
    batch = a_batch(embedded.client.database, 300, model=MODEL)
    embedded.client.pause(batch.id)
    with Terminal("watch", batch.id, env=embedded.env) as terminal:
        shown = terminal.wait_for(lambda text: "paused" in text, what="the pause")
        assert f"promptmill resume {batch.id}" in shown


def test_list_of_nothing_that_matches_says_so(embedded: Mill) -> None:
    a_batch(embedded.client.database, 4, name="nightly")
    done = embedded.run("list", "--name", "weekly*")
    assert "no batch matches" in done.stderr
    assert [line["name"] for line in embedded.lines("list", "--json", "--since", "1h")] == [
        "nightly"
    ]
