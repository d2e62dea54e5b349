"""What every benchmark prints and keeps: a table with ratios, the machine, versions, JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson
import psutil
from rich.console import Console
from rich.table import Table

#: Where JSON goes unless told otherwise; git ignores it.
FOLDER = Path("results") / "benchmarks"

Value = str | int | float | None


@dataclass
class Report:
    """Rows of one benchmark, each a mapping from column to value."""

    #: The script's name, without `.py`.
    name: str
    #: The question that it answers.
    question: str
    #: What was run: sizes, seeds, settings.
    setup: dict[str, Any] = field(default_factory=dict)
    #: Packages whose versions matter, of this environment.
    packages: tuple[str, ...] = ("celery", "sqlalchemy", "torch", "transformers")
    #: Versions of peers, which live in environments of their own.
    peers: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Value]] = field(default_factory=list)
    #: Single numbers for programs, which the notes tell people.
    figures: dict[str, float] = field(default_factory=dict)
    #: Lines below the table: what the rows come to.
    notes: list[str] = field(default_factory=list)

    def row(self, **columns: Value) -> None:
        self.rows.append(columns)

    def note(self, line: str) -> None:
        self.notes.append(line)

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "question": self.question,
            "machine": machine(),
            "versions": {**versions(self.packages), **self.peers},
            "setup": self.setup,
            "rows": self.rows,
            "figures": self.figures,
            "notes": self.notes,
        }

    def finish(self, json: Path | None = None) -> None:
        """Print it, and write it to `json` or to FOLDER."""
        console = Console()
        self._print(console)
        path = json or FOLDER / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(self.document(), option=orjson.OPT_INDENT_2) + b"\n")
        console.print(f"written to {path}", style="dim", highlight=False)

    def _print(self, console: Console) -> None:
        console.print(f"\n{self.question}", style="bold", highlight=False)
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        table = Table(*(name.replace("_", " ") for name in columns))
        for place, name in enumerate(columns):
            numeric = all(not isinstance(row.get(name), str) for row in self.rows)
            table.columns[place].justify = "right" if numeric else "left"
        for row in self.rows:
            table.add_row(*(shown(row.get(name)) for name in columns))
        console.print(table)
        for line in self.notes:
            console.print(line, highlight=False)
        where = machine()
        console.print(
            f"{where['cpu']}, {where['cores']} cores, {where['memory_gib']} GiB; "
            f"Python {where['python']}; "
            + ", ".join(f"{name} {number}" for name, number in self.document()["versions"].items()),
            style="dim",
            highlight=False,
        )


def forget_settings() -> None:
    """Drop the user's PROMPTMILL_*, here and for what is started: they would change figures."""
    for name in [name for name in os.environ if name.startswith("PROMPTMILL_")]:
        del os.environ[name]


def shown(value: Value) -> str:
    """A value for people: three or four significant digits."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "cpu": _cpu(),
        "cores": psutil.cpu_count(),
        "bf16": _flag("avx512_bf16") or _flag("amx_bf16"),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _flag(name: str) -> bool:
    try:
        return name in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def _gpu() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
