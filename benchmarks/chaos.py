"""A batch under fire: faults of every kind, and what is lost, doubled or stuck at the end.

    python benchmarks/chaos.py --jobs 20000 --workers 4 --faults 60 --seed 1

PostgreSQL, Redis and the workers are its own; the faults come from the seed, the moments in which
they strike from the machine. Exit 1 unless all of it is zero.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chaos_faults import Healed, plan, strike
from benchmarks.chaos_site import MODEL, Site, site
from db.queries.audit import audit
from db.records import Batch

#: Seconds after which a fault counts as not recovered from, and a batch as stuck.
PATIENCE = 120.0


@dataclass
class Report:
    """What came of it."""

    jobs: int
    workers: int
    seed: int
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    lost: int = 0
    duplicates: int = 0
    stuck: int = 0
    wrong: int = 0
    violations: list[str] = field(default_factory=list)
    #: Jobs that were generated more than once, as their worker was lost with them.
    repeated: int = 0
    #: Seconds until what a fault broke was whole again.
    recovery: list[float] = field(default_factory=list)
    unrecovered: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        bad = self.lost + self.duplicates + self.stuck + self.wrong
        return not (bad or self.violations or self.unrecovered)


class Recoveries:
    """Faults that have struck, and how long each took to heal."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._open: list[tuple[str, float, Healed]] = []

    def add(self, name: str, healed: Healed | None) -> None:
        if healed is not None:
            self._open.append((name, time.monotonic(), healed))

    def look(self) -> None:
        """Note those that have healed by now."""
        now = time.monotonic()
        still: list[tuple[str, float, Healed]] = []
        for name, since, healed in self._open:
            if healed():
                self._report.recovery.append(now - since)
            elif now - since > PATIENCE:
                self._report.unrecovered.append(name)
            else:
                still.append((name, since, healed))
        self._open = still

    def forget(self) -> None:
        """The batch is over: nothing more can come of what struck at its very end."""
        self._open.clear()


def prompts(jobs: int) -> Iterator[dict[str, object]]:
    for number in range(1, jobs + 1):
        yield {"prompt": f"prompt number {number} of many", "custom_id": f"n{number}"}


def torment(here: Site, batch: str, report: Report, seed: int, faults: int) -> None:
    """Strike until all faults have struck, or the batch is over; then wait for its end."""
    recoveries = Recoveries(report)
    struck: Counter[str] = Counter()
    for pause, name, own in plan(seed, faults):
        if _wait(here, batch, recoveries, pause):
            break
        click.echo(f"{here.done(batch) or 0:>8,} done: {name}", err=True)
        recoveries.add(name, strike(here, batch, name, own))
        struck[name] += 1
    report.faults = dict(sorted(struck.items()))
    progress, seen = time.monotonic(), -1
    while not _wait(here, batch, recoveries, 1.0):
        done = here.done(batch)
        if done is not None and done != seen:
            progress, seen = time.monotonic(), done
        if time.monotonic() - progress > PATIENCE:
            return
    recoveries.forget()


def _wait(here: Site, batch: str, recoveries: Recoveries, seconds: float) -> bool:
    """Look at the recoveries for so long; whether the batch is over."""
    until = time.monotonic() + seconds
    while True:
        recoveries.look()
        if (found := _batch(here, batch)) is not None and found.finished:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.1)


def _batch(here: Site, batch: str) -> Batch | None:
    return None if here.done(batch) is None else here.client.batch(batch)


def judge(here: Site, batch: str, report: Report) -> None:
    """Count what is not as promised."""
    found = here.client.batch(batch)
    report.stuck = found.total - found.done
    seen: Counter[tuple[int, int]] = Counter()
    for result in here.client.results(batch, order="input"):
        seen[result.line, result.sample] += 1
        report.wrong += result.text != f"prompt number {result.line} of many"
        report.repeated += result.attempts > 1
    report.lost = report.jobs - len({line for line, _ in seen}) - report.stuck
    report.duplicates = sum(seen.values()) - len(seen)
    with here.database.read() as connection:
        report.violations = [str(one) for one in audit(connection)]


def tell(report: Report) -> None:
    struck = sum(report.faults.values())
    click.echo(f"{report.jobs:,} jobs, {report.workers} workers, seed {report.seed}, {where()}")
    click.echo(f"faults      {struck}: " + ", ".join(f"{n} {k}" for k, n in report.faults.items()))
    click.echo(f"took        {report.seconds:.0f} s; {report.repeated:,} jobs generated again")
    for name in ("lost", "duplicates", "stuck", "wrong"):
        click.echo(f"{name:<11} {getattr(report, name)}")
    click.echo(f"audit       {len(report.violations)} violations")
    for one in report.violations:
        click.echo(f"            {one}")
    if report.recovery:
        middle, most = statistics.median(report.recovery), max(report.recovery)
        click.echo(f"to recover  median {middle:.1f} s, max {most:.1f} s")
    if report.unrecovered:
        click.echo(f"never       {', '.join(report.unrecovered)}")


def where() -> str:
    import os

    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


@click.command()
@click.option("--jobs", default=20_000, show_default=True)
@click.option("--workers", default=4, show_default=True)
@click.option("--faults", default=60, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--latency", default=0.2, show_default=True, help="Seconds that a job takes.")
@click.option("--capacity", default=8, show_default=True, help="Jobs at once in a worker.")
@click.option("--json", "as_json", is_flag=True)
def main(
    jobs: int, workers: int, faults: int, seed: int, latency: float, capacity: int, as_json: bool
) -> None:
    """Run a batch under random faults; print what is lost, doubled or stuck."""
    report = Report(jobs, workers, seed)
    folder = tempfile.TemporaryDirectory(prefix="promptmill-chaos-")
    with folder, site(Path(folder.name)) as here:
        batch = here.client.submit(prompts(jobs), model=MODEL, params={"temperature": 0}).id
        here.start_workers(workers, latency=latency, capacity=capacity)
        begun = time.monotonic()
        torment(here, batch, report, seed, faults)
        report.seconds = time.monotonic() - begun
        judge(here, batch, report)
    if as_json:
        click.echo(orjson.dumps(asdict(report)).decode())
    else:
        tell(report)
    sys.exit(0 if report.clean else 1)


if __name__ == "__main__":
    main()
