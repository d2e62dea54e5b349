"""OpenAI-compatible servers that nobody here wrote: `transformers serve`, and vLLM's.

Each runs in an environment of its own, which a variable names (`make test-engines` sets them):

    PROMPTMILL_TEST_SERVE   the `transformers` of one with `pip install 'transformers[serving]'`;
                            without it, that of the tests if FastAPI and Uvicorn are there
    PROMPTMILL_TEST_VLLM    the `python` of one with vLLM
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.support.processes import eventually
from tests.support.servers import free_port

EXECUTABLE, VLLM_PYTHON = "PROMPTMILL_TEST_SERVE", "PROMPTMILL_TEST_VLLM"

#: Seconds that a server may take until it answers: vLLM imports for a minute.
_PATIENCE = 240


def executable() -> str | None:
    """The `transformers` to run; None: there is none that could."""
    named = os.environ.get(EXECUTABLE)
    if named or (find_spec("fastapi") and find_spec("uvicorn")):
        return named or str(Path(sys.executable).with_name("transformers"))
    return None


@contextmanager
def transformers_serve(checkpoint: Path, folder: Path) -> Iterator[tuple[str, str]]:
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
    arguments = [command, "serve", str(model), "--port", str(port), "--device", "cpu"]
    with _running(arguments, port, folder):
        yield f"http://127.0.0.1:{port}/v1", str(model)


@contextmanager
def vllm_serve(checkpoint: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """The server's base URL and the model's name."""
    port = free_port()
    # Its own command looks for a package of another name in the build for CPUs.
    arguments = [
        *(os.environ[VLLM_PYTHON], "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(checkpoint), "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"),
        *("--kv-cache-memory-bytes", str(2**27)),
        *("--structured-outputs-config", json.dumps({"backend": "guidance"})),
    ]
    with _running(arguments, port, folder):
        yield f"http://127.0.0.1:{port}/v1", str(checkpoint)


@contextmanager
def _running(arguments: Sequence[str], port: int, folder: Path) -> Iterator[None]:
    # Not our own packages, which are on the path of the tests.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            arguments, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
    try:
        eventually(lambda: _healthy(port, process), what="the server answers", deadline=_PATIENCE)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server has ended: see serve.log"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
