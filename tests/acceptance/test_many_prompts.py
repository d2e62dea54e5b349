"""Peak memory of `submit` and `results`: bounded, and no matter of how many prompts there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sqlalchemy import text

from db.settings import Settings
from producer import Client
from tests.support.processes import command, environment

_FEW, _MANY = 50_000, 200_000
#: MiB that each command may take, at any size.
_LIMIT = 300
#: More memory that four times the prompts may take; rounding and the allocator's moods.
_GROWTH = 1.3


#: Runs a command and tells the peak of its memory. A small process of its own must do it: the
#: system counts what the one that forks holds, and pytest may have torch in it.
_MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
sys.stderr.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
#: Units of ru_maxrss in a MiB.
_UNITS = 1024 * 1024 if sys.platform == "darwin" else 1024


def _peak(*arguments: str) -> tuple[str, float]:
    """What `promptmill ARGUMENTS` prints, and the MiB that it held at its peak."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command(*arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, int(done.stderr.splitlines()[-1].split()[-1]) / _UNITS


def _file(folder: Path, count: int) -> str:
    path = folder / f"{count}.jsonl"
    with path.open("w") as file:
        for number in range(count):
            file.write(f'{{"prompt": "This is prompt {number}", "custom_id": "c{number}"}}\n')
    return str(path)


_RESULTS = """
INSERT INTO results (batch_id, line, sample, text, finish_reason, completion_tokens)
SELECT batch_id, line, 0, 'a text of some words for ' || custom_id, 'stop', 7
FROM jobs WHERE batch_id = :key
"""
_JOBS = """
UPDATE jobs
SET state = 'succeeded', attempts = 1, prompt_tokens = 5, completion_tokens = 7,
    started_at = line, finished_at = line + 1
WHERE batch_id = :key
"""


def _fill(batch: str) -> None:
    """Give every job a result, as if a worker had."""
    with Client(Settings()) as client, client.database.write() as connection:
        key = {"key": client.batch(batch).key}
        connection.execute(text(_RESULTS), key)
        connection.execute(text(_JOBS), key)


def test_given_four_times_the_prompts_when_submitted_and_exported_then_memory_stays(
    tmp_path: Path,
) -> None:
    peaks: dict[tuple[str, int], float] = {}
    for count in (_FEW, _MANY):
        printed, peaks["submit", count] = _peak("submit", _file(tmp_path, count), "--model", "m")
        batch = printed.strip()
        _fill(batch)
        output = tmp_path / f"out-{count}.jsonl"
        _, peaks["results", count] = _peak("results", batch, "-o", str(output))
        with output.open("rb") as file:
            assert sum(1 for _ in file) == count

    for what in ("submit", "results"):
        assert peaks[what, _MANY] < _LIMIT, peaks
        assert peaks[what, _MANY] < peaks[what, _FEW] * _GROWTH, peaks
