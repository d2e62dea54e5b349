"""What does a job cost PostgreSQL, Redis and a worker, and how many workers do they carry?

    python benchmarks/capacity.py
    python benchmarks/capacity.py --jobs 20000 --job-seconds 8

Processor time of each, at two sizes of chunks: what grows with their number is a chunk's, the rest
is a job's. From this follows how many workers of a given speed fill one core of each.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.places import place
from benchmarks.report import Report, forget_settings
from benchmarks.workers import started
from benchmarks.workloads import lines
from producer import Client

_MODEL = "bench/echo"
_SMALL, _LARGE = 16, 512


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of a processor."""

    postgresql: float
    redis: float
    worker: float

    def __sub__(self, other: Used) -> Used:
        return Used(
            self.postgresql - other.postgresql,
            self.redis - other.redis,
            self.worker - other.worker,
        )


def measure(jobs: int, chunk_size: int) -> tuple[Used, int]:
    """What `jobs` jobs took from their first claim on, and the number of their chunks."""
    with place("postgresql") as where:
        where.prepare().close()
        settings = where.settings.model_copy(update={"chunk_size": chunk_size})
        env = {**where.env, "PROMPTMILL_MODEL": _MODEL, "PROMPTMILL_ENGINE": "echo"}
        with Client(settings) as client:
            # Submitted before the worker comes, so that only the worker's part is counted.
            batch = client.submit(lines(jobs), model=_MODEL)
            before = _used(where.servers)
            with started(client, env, where.folder / "logs") as (worker,):
                client.wait(batch.id)
                after = _used(where.servers, worker.pid)
            with client.database.read() as connection:
                chunks = connection.exec_driver_sql("SELECT count(*) FROM chunks").scalar_one()
    return after - before, int(chunks)


def _used(servers: dict[str, int], worker: int | None = None) -> Used:
    return Used(
        _seconds(servers["postgresql"]),
        _seconds(servers["redis"]),
        0.0 if worker is None else _seconds(worker),
    )


def _seconds(pid: int) -> float:
    """Of a process and its children, the ended ones among them."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    own = process.cpu_times()
    return total + own.children_user + own.children_system


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--jobs", default=60_000, show_default=True)
@click.option("--job-rate", default=50.0, show_default=True, help="Jobs a second of a GPU worker.")
@click.option("--chunk-size", default=64, show_default=True, help="With which it works.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(jobs: int, job_rate: float, chunk_size: int, path: Path | None) -> None:
    forget_settings()
    report = Report(
        "capacity",
        "How many workers do one PostgreSQL and one Redis carry?",
        setup={"jobs": jobs, "job_rate": job_rate, "chunk_size": chunk_size},
        packages=("celery", "redis", "sqlalchemy", "psycopg"),
    )
    click.echo(f"chunks of {_SMALL}", err=True)
    many, many_chunks = measure(jobs, _SMALL)
    click.echo(f"chunks of {_LARGE}", err=True)
    few, few_chunks = measure(jobs, _LARGE)
    for name in ("postgresql", "redis", "worker"):
        more, less = getattr(many, name), getattr(few, name)
        a_chunk = max(0.0, (more - less) / (many_chunks - few_chunks))
        a_job = max(0.0, (less - a_chunk * few_chunks) / jobs)
        a_second = job_rate * (a_job + a_chunk / chunk_size)
        report.row(
            part=name,
            microseconds_a_job=a_job * 1e6,
            microseconds_a_chunk=a_chunk * 1e6,
            workers_a_core=None if name == "worker" else 1 / a_second,
            share_of_a_core=a_second if name == "worker" else None,
        )
    report.note(
        f"a worker here makes {job_rate:g} jobs a second in chunks of {chunk_size}; the worker's "
        "own share of a core is what stays beside its model"
    )
    report.finish(path)


if __name__ == "__main__":
    main()
