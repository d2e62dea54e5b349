"""`transformers serve`: an OpenAI-compatible server that nobody here wrote.

It needs FastAPI and Uvicorn (`pip install 'transformers[serving]'`): in the environment of the
tests, or in one of its own whose `transformers` PROMPTMILL_TEST_SERVE names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.support.processes import eventually
from tests.support.servers import free_port

EXECUTABLE = "PROMPTMILL_TEST_SERVE"


def executable() -> str | None:
    """The command to run; None: there is none that could."""
    named = os.environ.get(EXECUTABLE)
    if named or (find_spec("fastapi") and find_spec("uvicorn")):
        return named or str(Path(sys.executable).with_name("transformers"))
    return None


@contextmanager
def serving(checkpoint: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """The server's base URL and the model's name, for a copy of the checkpoint that samples.

    The server draws only where the model's own generation config says so.
    """
    command = executable()
    assert command is not None
    model = folder / "model"
    shutil.copytree(checkpoint, model)
    config = model / "generation_config.json"
    settings = json.loads(config.read_text()) if config.exists() else {}
    config.write_text(json.dumps({**settings, "do_sample": True, "top_k": 0}))
    port = free_port()
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [command, "serve", str(model), "--port", str(port), "--device", "cpu"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        eventually(lambda: _healthy(port, process), what="the server answers", deadline=120)
        yield f"http://127.0.0.1:{port}/v1", str(model)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "transformers serve has ended: see serve.log"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
