"""What do `submit` and `results` add to the barest INSERT and SELECT of the same rows?

    python benchmarks/submit.py                             # a million prompts, both databases
    python benchmarks/submit.py --prompts 100000 --database sqlite

The commands are run as a user runs them, from the shell; their peak memory is taken for a tenth
of the prompts too, to see whether it grows.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click
import orjson
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bare
from benchmarks.places import Place, databases, place
from benchmarks.report import Report, forget_settings
from benchmarks.workloads import lines

#: Seconds between two looks at a command's memory.
_LOOK = 0.02

_SCRIPT = Path(sys.executable).with_name("promptmill")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a command took."""

    seconds: float
    peak_mib: float
    output: str


def run(where: Place, *arguments: str) -> Spent:
    """`promptmill ARGUMENTS`. Raises click.ClickException with what it said if it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as remarks:
        process = psutil.Popen(
            [_SCRIPT, *arguments], env={**os.environ, **where.env}, stdout=printed, stderr=remarks
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process))
            with suppress(psutil.TimeoutExpired):
                process.wait(_LOOK)
        seconds = time.perf_counter() - began
        printed.seek(0)
        output = printed.read()
        if process.returncode:
            remarks.seek(0)
            reason = remarks.read()[-2000:]
            raise click.ClickException(f"promptmill {arguments[0]} failed:\n{reason}")
    return Spent(seconds, peak / 2**20, output)


def _resident(process: psutil.Popen) -> int:
    """Bytes in memory, with its children; 0 once it has ended.

    What the system notes as its peak is its parent's.
    """
    found = 0
    with suppress(psutil.NoSuchProcess):
        for one in (process, *process.children()):
            found += one.memory_info().rss
    return found


def write_prompts(path: Path, count: int) -> None:
    """A file of requests with a custom_id and a prompt each."""
    with path.open("wb") as file:
        for number, line in enumerate(lines(count), start=1):
            file.write(orjson.dumps({"custom_id": f"r{number}", **line}) + b"\n")


def rows(count: int) -> list[bare.Row]:
    """The rows of those requests."""
    return [
        (1, number, f"r{number}", "queued", orjson.dumps(line).decode())
        for number, line in enumerate(lines(count), start=1)
    ]


def complete(where: Place, batch: str) -> None:
    """End the batch as a worker would, with the prompt for an answer."""
    bare.execute(
        where.database,
        "INSERT INTO workers (id, name, host, pid, queue, engine, engine_version, model, device, "
        "dtype, parameters, capacity, started_at, heartbeat_at) "
        "VALUES (1, 'host:1:a', 'host', 1, 'q', 'echo', '1', 'm', 'cpu', 'text', 0, 64, 0, 0)",
        "INSERT INTO results (batch_id, line, sample, text, finish_reason, completion_tokens) "
        "SELECT batch_id, line, 0, request, 'stop', 7 FROM jobs",
        "UPDATE jobs SET state = 'succeeded', attempts = 1, worker_id = 1, prompt_tokens = 5, "
        "completion_tokens = 7, started_at = 1790000000 + line * 0.001, "
        "finished_at = 1790000000.5 + line * 0.001",
        "UPDATE chunks SET state = 'done'",
        f"UPDATE batches SET state = 'completed', succeeded = total WHERE uid = '{batch}'",
    )
    bare.execute(where.database, "VACUUM" if "sqlite" in where.database else "VACUUM ANALYZE")


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--prompts", default=1_000_000, show_default=True)
@databases
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(prompts: int, kinds: tuple[str, ...], path: Path | None) -> None:
    forget_settings()
    report = Report(
        "submit",
        "How near do submit and results come to the barest INSERT and SELECT?",
        setup={"prompts": prompts},
        packages=("sqlalchemy", "psycopg", "orjson"),
    )
    for kind in kinds:
        _submit(report, kind, prompts)
    report.note("memory: the peak of the command, for a tenth of the prompts and for all")
    report.finish(path)


def _submit(report: Report, kind: str, prompts: int) -> None:
    click.echo(f"{kind}: barest insert", err=True)
    with place(kind) as where:
        where.prepare().close()
        given = rows(prompts)
        began = time.perf_counter()
        bare.insert(where.database, given)
        inserted = time.perf_counter() - began
        del given
    small, _ = _commands(kind, max(1, prompts // 10), bare_too=False)
    whole, selected = _commands(kind, prompts, bare_too=True)
    for name, barest, few, all_ in (
        ("submit", inserted, small[0], whole[0]),
        ("results", selected, small[1], whole[1]),
    ):
        report.row(
            database=kind,
            command=name,
            seconds=all_.seconds,
            bare_seconds=barest,
            prompts_per_second=prompts / all_.seconds,
            of_bare=barest / all_.seconds,
            MiB_for_a_tenth=few.peak_mib,
            MiB=all_.peak_mib,
        )


def _commands(kind: str, prompts: int, *, bare_too: bool) -> tuple[tuple[Spent, Spent], float]:
    """What `submit` and `results` took, and the seconds of the barest SELECT."""
    with place(kind) as where:
        where.prepare().close()
        file, output = where.folder / "prompts.jsonl", where.folder / "results.jsonl"
        write_prompts(file, prompts)
        click.echo(f"{kind}: submit {prompts:,}", err=True)
        submitted = run(where, "submit", str(file), "--model", "bench/echo")
        batch = submitted.output.split()[-1]
        complete(where, batch)
        selected = 0.0
        if bare_too:
            click.echo(f"{kind}: barest select", err=True)
            began = time.perf_counter()
            found = bare.select(where.database)
            selected = time.perf_counter() - began
            assert found == prompts
        click.echo(f"{kind}: results {prompts:,}", err=True)
        exported = run(where, "results", batch, "--output", str(output))
        with output.open("rb") as written:
            assert sum(1 for _ in written) == prompts
    return (submitted, exported), selected


if __name__ == "__main__":
    main()
