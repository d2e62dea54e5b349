"""Do N workers do N times the work of one, and do they finish together?

    python benchmarks/scaling.py
    python benchmarks/scaling.py --workers 1 --workers 4 --seconds 5

The engine is `echo` with a fixed latency: every worker could do CAPACITY / LATENCY jobs a second,
whatever this machine has. All the rest is real: PostgreSQL, Redis, a process a worker.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import click
from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.places import databases, place
from benchmarks.report import Report, forget_settings
from benchmarks.workers import started
from benchmarks.workloads import lines
from db.database import Database
from db.schema import jobs
from producer import Client

_MODEL = "bench/echo"


@dataclass(frozen=True, slots=True)
class Engine:
    """How fast a worker could be."""

    #: Seconds a job.
    latency: float
    #: Jobs at once.
    capacity: int

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.capacity / self.latency

    @property
    def options(self) -> str:
        return json.dumps({"latency": str(self.latency), "capacity": str(self.capacity)})


@dataclass(frozen=True, slots=True)
class Run:
    """What a number of workers did."""

    workers: int
    jobs: int
    #: From the first claim to the last result.
    seconds: float
    #: From the last result of the worker that was idle first to the last one of all.
    tail: float


def run(kind: str, engine: Engine, workers: int, seconds: float) -> Run:
    """As many jobs as `workers` could do in `seconds`."""
    count = round(workers * engine.rate * seconds)
    with place(kind) as where:
        where.prepare().close()
        env = {
            **where.env,
            "PROMPTMILL_MODEL": _MODEL,
            "PROMPTMILL_ENGINE": "echo",
            "PROMPTMILL_ENGINE_OPTIONS": engine.options,
        }
        with (
            Client(where.settings) as client,
            started(client, env, where.folder / "logs", workers),
        ):
            batch = client.submit(lines(count), model=_MODEL)
            done = client.wait(batch.id)
            assert done.succeeded == count, done
            assert done.started_at is not None
            assert done.finished_at is not None
            last = _last_results(client.database)
            assert len(last) == workers, f"{workers - len(last)} workers did nothing"
            return Run(workers, count, done.finished_at - done.started_at, max(last) - min(last))


def _last_results(database: Database) -> list[float]:
    """When each worker stored its last result."""
    query = select(func.max(jobs.c.finished_at)).group_by(jobs.c.worker_id)
    with database.read() as connection:
        return list(connection.execute(query).scalars())


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--workers", "counts", default=(1, 2, 4, 8, 16), multiple=True, show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="That a run would take at best.")
@click.option("--latency", default=1.0, show_default=True, help="Of a job (seconds).")
@click.option("--capacity", default=32, show_default=True, help="Jobs at once of a worker.")
@databases
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(
    counts: tuple[int, ...],
    seconds: float,
    latency: float,
    capacity: int,
    kinds: tuple[str, ...],
    path: Path | None,
) -> None:
    forget_settings()
    engine = Engine(latency, capacity)
    report = Report(
        "scaling",
        "Do N workers do N times the work of one?",
        setup={"latency": latency, "capacity": capacity, "seconds": seconds},
        packages=("celery", "redis", "sqlalchemy", "psycopg"),
    )
    for kind in kinds:
        for workers in counts:
            click.echo(f"{kind}: {workers} workers", err=True)
            one = run(kind, engine, workers, seconds)
            report.row(
                database=kind,
                workers=workers,
                jobs=one.jobs,
                seconds=one.seconds,
                jobs_per_second=one.jobs / one.seconds,
                of_ideal=one.jobs / (workers * engine.rate) / one.seconds,
                tail_share=one.tail / one.seconds,
            )
    report.note("of ideal: without a moment lost, from the first claim to the last result")
    report.note("tail: from when the first worker ran dry to the end, as a share of the run")
    report.finish(path)


if __name__ == "__main__":
    main()
