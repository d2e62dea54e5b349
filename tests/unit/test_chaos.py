"""The chaos run: what a seed fixes, and that its command line is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.chaos import Report
from benchmarks.chaos_faults import WEIGHTS, Strike, plan
from tests.support.processes import environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


def test_given_a_seed_when_planned_twice_then_the_same_faults_strike() -> None:
    assert plan(1, 60) == plan(1, 60)
    assert plan(1, 60) != plan(2, 60)
    assert {name for _, name, _ in plan(1, 500)} == set(WEIGHTS)


def test_every_fault_that_is_planned_can_strike() -> None:
    assert [name for name in WEIGHTS if not callable(getattr(Strike, name, None))] == []


def test_a_report_is_clean_only_if_nothing_is_wrong() -> None:
    assert Report(1, 1, 1, recovery=[2.0], repeated=5).clean
    assert not Report(1, 1, 1, lost=1).clean
    assert not Report(1, 1, 1, duplicates=1).clean
    assert not Report(1, 1, 1, stuck=1).clean
    assert not Report(1, 1, 1, wrong=1).clean
    assert not Report(1, 1, 1, violations=["counters"]).clean
    assert not Report(1, 1, 1, unrecovered=["kill_worker"]).clean


def test_when_run_from_a_shell_then_it_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--seed" in done.stdout
