"""Does it matter how many jobs wait, to a worker that claims and to a user who asks?

    python benchmarks/depth.py                              # up to ten million jobs
    python benchmarks/depth.py --jobs 10000 --jobs 100000

The jobs are put into the database by itself, in chunks of 64; then chunks are claimed and the
status of the batch is asked for, each 200 times.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bare
from benchmarks.places import Place, databases, place
from benchmarks.report import Report, forget_settings
from db.database import Database
from db.ids import queue_name
from db.queries import chunks
from producer import Client

_MODEL = "bench/echo"
_CHUNK = 64
#: Times that each is done.
_TIMES = 200

_NUMBERS = {
    "postgresql": "generate_series(1, {count}) AS numbers (n)",
    "sqlite": "(WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers "
    "LIMIT {count}) SELECT n FROM numbers) AS numbers",
}


def fill(where: Place, kind: str, jobs: int) -> str:
    """A running batch of `jobs` jobs, all waiting; its id."""
    with Client(where.settings) as client:
        batch = client.submit(["the first one"], model=_MODEL)
    numbers = _NUMBERS[kind]
    chunk_count = jobs // _CHUNK
    bare.execute(
        where.database,
        "INSERT INTO workers (id, name, host, pid, queue, engine, engine_version, model, device, "
        "dtype, parameters, capacity, started_at, heartbeat_at) "
        "VALUES (1, 'host:1:a', 'host', 1, 'q', 'echo', '1', 'm', 'cpu', 'text', 0, 64, 0, 0)",
        "DELETE FROM chunks",
        "DELETE FROM jobs",
        "INSERT INTO jobs (batch_id, line, custom_id, state, request) "
        "SELECT 1, n, 'r' || n, 'queued', '{\"prompt\":\"the same for all\"}' FROM "
        + numbers.format(count=chunk_count * _CHUNK),
        "INSERT INTO chunks (batch_id, queue, priority, state, first_line, last_line) "
        f"SELECT 1, '{queue_name(_MODEL)}', 5, 'queued', (n - 1) * {_CHUNK} + 1, n * {_CHUNK} "
        "FROM " + numbers.format(count=chunk_count),
        f"UPDATE batches SET total = {chunk_count * _CHUNK}",
        "ANALYZE",
    )
    return batch.id


def claiming(database: Database) -> Callable[[], object]:
    def claim() -> object:
        with database.write() as connection:
            return chunks.claim_next(connection, queue_name(_MODEL), worker=1, lease=30)

    return claim


def milliseconds(call: Callable[[], object]) -> float:
    """Of one call, the median."""
    taken = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        assert call() is not None
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option(
    "--jobs", "depths", default=(20_000, 100_000, 1_000_000, 10_000_000), multiple=True,
    show_default=True, type=click.IntRange(min=20_000), help="That wait.",
)  # fmt: skip
@databases
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(depths: tuple[int, ...], kinds: tuple[str, ...], path: Path | None) -> None:
    forget_settings()
    report = Report(
        "depth",
        "Does it matter how many jobs wait?",
        setup={"chunk": _CHUNK, "times": _TIMES},
        packages=("sqlalchemy", "psycopg"),
    )
    for kind in kinds:
        for depth in depths:
            click.echo(f"{kind}: {depth:,} jobs", err=True)
            with place(kind) as where:
                database = where.prepare()
                batch = fill(where, kind, depth)
                with Client(where.settings) as client:
                    report.row(
                        database=kind,
                        jobs=depth,
                        claim_ms=milliseconds(claiming(database)),
                        status_ms=milliseconds(lambda: client.status(batch)),  # noqa: B023
                    )
                database.close()
    report.finish(path)


if __name__ == "__main__":
    main()
