"""How many jobs a second does one worker take, echo and store, and how many do other queues?

    python benchmarks/peers.py celery celery-batches rq dramatiq arq     # once
    python benchmarks/queues.py                  # both databases, all that is installed
    python benchmarks/queues.py --database sqlite --jobs 20000 --peer-jobs 1000

From the first prompt queued to the last result stored, without any time for generating. Each side
runs alone, with one worker process on a Redis and a database of its own. Every peer gets a prompt a
message, and stores each in a transaction of its own; celery-batches up to 64 together.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import peers
from benchmarks.places import databases, place
from benchmarks.report import Report, forget_settings

#: Environment, name and module of each peer.
_PEERS = (
    ("celery", "Celery, one process", "celery_tasks", "1"),
    ("celery", "Celery, two processes", "celery_tasks", "2"),
    ("celery-batches", "celery-batches", "celery_batches_tasks"),
    ("rq", "RQ", "rq_tasks"),
    ("dramatiq", "Dramatiq", "dramatiq_tasks"),
    ("arq", "arq", "arq_tasks"),
)

#: What the others are compared with.
_PLAIN = "Celery, one process"


@dataclass(frozen=True)
class Side:
    """One of those compared."""

    name: str
    module: str
    python: Path
    jobs: int
    more: tuple[str, ...] = ()

    def run(self, database: str, redis: str) -> dict[str, Any]:
        """What it measured."""
        arguments = (database, redis, str(self.jobs), *self.more)
        return peers.measured(self.python, f"queue_sides.{self.module}", *arguments)


def sides(jobs: int, peer_jobs: int, chunk_sizes: tuple[int, ...]) -> list[Side]:
    """promptmill, and the peers if they are installed."""
    ours = Path(sys.executable)
    found = [Side("promptmill", "whole", ours, jobs)]
    found += [
        Side(f"promptmill, chunks of {size}", "whole", ours, jobs, (str(size),))
        for size in chunk_sizes
    ]
    found += [
        Side(name, module, peers.python(environment), peer_jobs, tuple(more))
        for environment, name, module, *more in _PEERS
        if peers.installed(environment)
    ]
    return found


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--jobs", default=300_000, show_default=True, help="Of promptmill.")
@click.option("--peer-jobs", default=3_000, show_default=True, help="Of each peer.")
@click.option(
    "--chunk-size", "chunk_sizes", default=(64, 1000), multiple=True, help="Besides the usual one."
)
@databases
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(
    jobs: int,
    peer_jobs: int,
    chunk_sizes: tuple[int, ...],
    kinds: tuple[str, ...],
    path: Path | None,
) -> None:
    forget_settings()
    report = Report(
        "queues",
        "How many jobs a second from submit to stored result?",
        setup={"jobs": jobs, "peer_jobs": peer_jobs},
        packages=("celery", "redis", "sqlalchemy", "psycopg"),
    )
    wanted = sorted({environment for environment, *_ in _PEERS})
    missing = [name for name in wanted if not peers.installed(name)]
    for name in set(wanted) - set(missing):
        report.peers |= peers.versions(name, name)
    if missing:
        report.note(peers.how_to_have(*missing))
    for kind in kinds:
        _compare(report, kind, sides(jobs, peer_jobs, chunk_sizes))
    report.finish(path)


def _compare(report: Report, kind: str, compared: list[Side]) -> None:
    found = {}
    for side in compared:
        click.echo(f"{kind}: {side.name}", err=True)
        with place(kind) as where:
            found[side] = side.run(where.database, where.redis)
    rates = {side: one["jobs"] / one["seconds"] for side, one in found.items()}
    plain = next((rate for side, rate in rates.items() if side.name == _PLAIN), None)
    for side, rate in rates.items():
        worker = found[side].get("worker")
        report.row(
            database=kind,
            side=side.name,
            jobs=side.jobs,
            jobs_per_second=rate,
            of_celery=None if plain is None else rate / plain,
            worker_alone=None if worker is None else side.jobs / worker,
        )


if __name__ == "__main__":
    main()
