"""SQLite that another process locks, and a disk that is full: workers wait, and go on."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.mill import Mill
from tests.faults.conftest import installation, sqlite_url
from tests.faults.proof import BUSY, JOBS, begun, long_or_short, proven, queued
from tests.support.processes import eventually
from tests.support.servers import PrivateRedis

#: Takes the write lock, says so, and holds it until standard input ends.
_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@pytest.mark.timeout(300)
def test_given_busy_workers_when_another_process_locks_the_database_then_they_wait_and_go_on(
    on_sqlite: Mill, tmp_path: Path
) -> None:
    workers = [on_sqlite.start_worker(BUSY) for _ in range(2)]
    batch = queued(on_sqlite, 2 * JOBS)
    begun(on_sqlite, batch)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "mill.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    time.sleep(long_or_short(30, 5))  # the fault itself: it lasts so long
    holder.communicate()
    proven(on_sqlite, batch, 2 * JOBS)
    assert all(worker.process.poll() is None for worker in workers)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB, which only root can make."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"a small disk needs root and mount: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def on_small_disk(small_disk: Path, own_redis: PrivateRedis, tmp_path: Path) -> Iterator[Mill]:
    yield from installation(tmp_path, sqlite_url(small_disk), own_redis)


def test_given_a_full_disk_when_it_is_freed_then_the_workers_go_on_where_they_were(
    on_small_disk: Mill, small_disk: Path
) -> None:
    worker = on_small_disk.worker(BUSY)
    batch = queued(on_small_disk, 2 * JOBS)
    begun(on_small_disk, batch)
    filler = small_disk / "filler"
    _fill(filler)
    eventually(lambda: "the disk is full" in worker.said(), what="it says what is wrong")
    before = on_small_disk.client.batch(batch).done
    assert before < 2 * JOBS
    filler.unlink()
    proven(on_small_disk, batch, 2 * JOBS)
    assert worker.process.poll() is None
    with sqlite3.connect(small_disk / "mill.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def _fill(path: Path) -> None:
    """Write until nothing more fits, not even a byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    os.write(file.fileno(), b"\0" * size)
            except OSError:
                continue
