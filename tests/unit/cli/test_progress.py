"""What a batch that somebody follows shows: in a terminal, and in a log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from db.records import Batch, Pace
from db.states import BatchState
from producer.activity import activity, rounded, speed, standing
from producer.progress import BatchProgress, LogView, live_lines
from tests.support.results import batch as stored_batch

MODEL = "/home/someone/models/meta-llama/Llama-3.2-1B-Instruct"


def batch(**changes: Any) -> Batch:
    values = {"total": 300, "succeeded": 120, "state": BatchState.IN_PROGRESS, "model": MODEL}
    return replace(stored_batch(), **{**values, "finished_at": None, **changes})


def pace(**changes: Any) -> Pace:
    values: dict[str, Any] = {"serving": 1, "working": 1, "running": 8, "tokens_per_second": 199.4}
    return Pace(now=100.0, **{**values, **changes})


IDLE = pace(serving=0, working=0, running=0, tokens_per_second=0.0)


@pytest.mark.parametrize(
    ("changes", "workers", "own", "words"),
    [
        ({}, pace(), None, None),
        ({}, None, None, None),
        ({"state": BatchState.COMPLETED}, IDLE, None, None),
        ({"state": BatchState.VALIDATING}, IDLE, None, "its prompts are being stored"),
        ({"state": BatchState.CANCELLING}, IDLE, None, "being cancelled"),
        ({"state": BatchState.QUEUED}, IDLE, "loading m", "loading m"),
        ({"state": BatchState.QUEUED}, pace(working=0), None, "waiting for 1 busy worker"),
        ({}, IDLE, None, f"waiting for a worker: promptmill worker --model {MODEL}"),
    ],
)
def test_activity_says_why_nothing_is_generated(
    changes: dict[str, Any], workers: Pace | None, own: str | None, words: str | None
) -> None:
    assert activity(batch(**changes), workers, own=own) == words


def test_activity_of_a_paused_batch_says_how_it_continues() -> None:
    paused = batch(state=BatchState.PAUSED)
    assert activity(paused, pace()) == f"paused: 'promptmill resume {paused.id}' continues it"


def test_speed_names_failures_rate_and_time_left() -> None:
    assert speed(batch(failed=3), pace(), 125.0) == ["3 failed", "199 tok/s", "about 2 min left"]
    assert speed(batch(), pace(), None) == ["199 tok/s"]
    assert speed(batch(succeeded=293), pace(), None) == ["199 tok/s", "the last 7 running"]


@pytest.mark.parametrize(
    ("tokens", "words"), [(0.0, []), (0.04, []), (0.4, ["0.4 tok/s"]), (9.96, ["10 tok/s"])]
)
def test_rate_is_shown_only_where_it_is_known(tokens: float, words: list[str]) -> None:
    assert speed(batch(), pace(tokens_per_second=tokens), None) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stops_at": 126.0}, "its worker stops within 26 s"),
        ({"stops_at": 99.0}, "its worker is stopping"),
        ({"stops_at": 126.0, "working": 2}, "all its 2 workers stop within 26 s"),
    ],
)
def test_speed_says_that_all_workers_of_a_batch_stop(changes: dict[str, Any], words: str) -> None:
    assert speed(batch(), pace(serving=0, **changes), 125.0) == ["199 tok/s", words]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (7, "7 s"), (43, "45 s"), (100, "2 min"), (3000, "50 min"),
     (7300, "2 h"), (9000, "2 h 30 min")],
)  # fmt: skip
def test_time_left_claims_no_more_than_an_estimate_knows(seconds: float, words: str) -> None:
    assert rounded(seconds) == words


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("total", [300, 1_234_567])
def test_live_lines_fit_their_width_and_show_the_count_whole(width: int, total: int) -> None:
    shown = batch(total=total, succeeded=total // 3, failed=12)
    words = activity(shown, IDLE)
    for lines in (
        live_lines(shown, pace(), None, 125.0, elapsed=3661.5, width=width),
        live_lines(shown, IDLE, words, None, elapsed=1.0, width=width),
    ):
        assert all(cell_len(line) <= width for line in lines)
        assert f"{total // 3 + 12:,}/{total:,}" in lines[0]
    assert lines[1].endswith("Llama-3.2-1B-Instruct")
    assert ("promptmill worker --model" in lines[1]) == (width > 60)


def test_long_model_loses_its_start_before_the_command_around_it_loses_anything() -> None:
    words = activity(batch(), IDLE)
    _, second = live_lines(batch(), IDLE, words, None, elapsed=1.0, width=78)
    assert second.startswith("  waiting for a worker: promptmill worker --model …")
    assert second.endswith("/Llama-3.2-1B-Instruct")


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("model", ["/srv/日本語/" * 9 + "Modell-für-Übersetzungen-日本語", "m m"])
def test_live_lines_of_any_model_fit_their_width(width: int, model: str) -> None:
    shown = batch(model=model, state=BatchState.QUEUED)
    words = activity(shown, IDLE)
    assert words is not None
    assert words.endswith(f"--model '{model}'")
    for line in live_lines(shown, IDLE, words, None, elapsed=1.0, width=width):
        assert cell_len(line) <= width


def test_bar_is_left_out_where_it_would_be_too_short() -> None:
    first, _ = live_lines(batch(), pace(), None, None, elapsed=0.0, width=40)
    assert "━" not in first
    assert "120/300  40 %" in first


class Log:
    """A log view with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.progress = BatchProgress(LogView(lambda: self.now, self.lines.append))

    def look(self, at: float, shown: Batch, workers: Pace | None = None) -> None:
        self.now = at
        self.progress(shown, workers)


def test_log_has_a_line_every_thirty_seconds() -> None:
    log = Log()
    for second in range(0, 100, 2):
        log.look(second, batch(succeeded=1), pace())
    assert len(log.lines) == 3
    assert log.lines[0].endswith("1 of 300 done (0 %), 199 tok/s")


def test_log_has_a_line_at_each_tenth_but_not_more_than_every_five_seconds() -> None:
    log = Log()
    for second in range(41):
        log.look(second, batch(succeeded=second * 5), pace())
    tenths = [line.partition(" done ")[2].partition(")")[0] for line in log.lines]
    assert tenths == ["(10 %", "(20 %", "(30 %", "(40 %", "(50 %", "(60 %"]

    quick = Log()
    for tenth in range(11):
        quick.look(tenth * 0.3, batch(succeeded=tenth * 30), pace())
    assert quick.lines == []


def test_log_says_what_is_waited_for() -> None:
    log = Log()
    log.look(31, batch(state=BatchState.PAUSED), IDLE)
    assert log.lines[0].endswith("continues it")
    assert "paused" in log.lines[0]


def test_standing_counts_and_never_rounds_up_to_all() -> None:
    assert standing(batch(succeeded=297, failed=2)) == "299 of 300 done (99 %), 2 failed"
    assert standing(batch(succeeded=300)) == "300 of 300 done (100 %)"
