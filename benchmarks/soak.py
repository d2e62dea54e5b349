"""Does a worker's memory stay flat over millions of jobs?

    python benchmarks/soak.py                      # two million jobs through one worker
    python benchmarks/soak.py --jobs 100000

Samples of the worker's resident memory at every twentieth of the jobs; the first tenth is warm-up.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.places import KINDS, place
from benchmarks.report import Report, forget_settings
from benchmarks.workers import started
from benchmarks.workloads import lines
from db.records import Batch
from producer import Client

_MODEL = "bench/echo"
_SAMPLES = 20
#: Share of the jobs that warm the worker up.
_WARM_UP = 0.1


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--jobs", default=2_000_000, show_default=True)
@click.option("--database", "kind", default="postgresql", type=click.Choice(KINDS))
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(jobs: int, kind: str, path: Path | None) -> None:
    forget_settings()
    report = Report(
        "soak",
        "Does a worker's memory stay flat?",
        setup={"jobs": jobs, "database": kind},
        packages=("celery", "redis", "sqlalchemy", "psycopg"),
    )
    samples: list[tuple[int, float]] = []
    with place(kind) as where:
        where.prepare().close()
        env = {**where.env, "PROMPTMILL_MODEL": _MODEL, "PROMPTMILL_ENGINE": "echo"}
        with (
            Client(where.settings) as client,
            started(client, env, where.folder / "logs") as (worker,),
        ):
            process = psutil.Process(worker.pid)

            def look(batch: Batch) -> None:
                if batch.done >= len(samples) * jobs / _SAMPLES:
                    samples.append((batch.done, process.memory_info().rss / 2**20))

            click.echo(f"{kind}: submit {jobs:,}", err=True)
            batch = client.submit(lines(jobs), model=_MODEL)
            click.echo(f"{kind}: run", err=True)
            done = client.wait(batch.id, on_progress=look, poll=0.1)
    assert done.succeeded == jobs, done
    for count, resident in samples:
        report.row(jobs_done=count, MiB=resident)
    warm = [resident for count, resident in samples if count >= _WARM_UP * jobs]
    report.note(f"after warm-up: {min(warm):.0f} to {max(warm):.0f} MiB, at the end {warm[-1]:.0f}")
    report.finish(path)


if __name__ == "__main__":
    main()
