"""The worker that `run` keeps: its logs."""

from __future__ import annotations

from pathlib import Path

from producer.local_worker import LocalWorker


def test_given_many_old_logs_when_a_worker_starts_then_the_newest_are_kept(tmp_path: Path) -> None:
    old = [tmp_path / f"worker-20260101-{number:06}-1.log" for number in range(30)]
    for path in [*old, tmp_path / "mine.txt"]:
        path.touch()
    worker = LocalWorker({"PROMPTMILL_ENGINE": "nonesuch"}, tmp_path / "worker-20260102-0-1.log")
    worker.stop(30)
    assert (tmp_path / "mine.txt").exists()
    assert [path for path in old if path.exists()] == old[-19:]  # and that of this one
    assert worker.log.exists()
