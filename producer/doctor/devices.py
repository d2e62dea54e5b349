"""What a model could run on: asked of torch in a process of its own.

A producer has no torch, and importing it takes seconds and hundreds of megabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from db.extras import install_command
from db.settings import Settings
from producer.doctor.check import Check, gib

#: Seconds that torch may take to start; the first time its files come from the disk.
_TIMEOUT = 120.0

_PROBE = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps({
    "version": torch.__version__,
    "threads": torch.get_num_threads(),
    "gpu_build": (torch.version.cuda or torch.version.hip) is not None,
    "gpus": [[torch.cuda.get_device_name(i), torch.cuda.mem_get_info(i)[0]] for i in range(count)],
}))
"""

_INSTALL = install_command("worker")

#: Engine -> the packages that it can't do without, and how they come.
_NEEDED = {
    "transformers": (("torch", "transformers"), _INSTALL),
    "keras": (("keras_hub", "transformers"), install_command("keras")),
    "vllm": (("vllm",), f"{install_command('vllm')}, into an environment of its own"),
    "openai": (("openai",), install_command("openai")),
}


@dataclass(frozen=True, slots=True)
class Torch:
    """What torch says of this machine."""

    version: str
    #: CPU threads that it computes with.
    threads: int
    #: Whether it was built to use a GPU.
    gpu_build: bool
    #: Name and free bytes of each CUDA (or ROCm) device, `cuda:0` first.
    gpus: tuple[tuple[str, int], ...]


def device_checks(settings: Settings) -> Iterator[Check]:
    """Raises subprocess.TimeoutExpired where torch hangs."""
    if settings.engine == "echo":
        yield Check("devices", "ok", "the engine echo needs none")
        return
    needed, install = _NEEDED.get(settings.engine, _NEEDED["transformers"])
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        yield Check(
            "devices",
            "warning",
            f"{missing[0]} is not installed: this machine can submit but not generate",
            install,
        )
        return
    if settings.engine in {"keras", "vllm"}:
        told = f"the engine {settings.engine} names its device when a worker starts"
        yield Check("devices", "ok", told)
        return
    if settings.engine == "openai":
        yield Check("devices", "ok", "the engine openai needs none: its endpoint computes")
        return
    found = _ask_torch()
    if isinstance(found, Torch):
        yield device_check(found, settings.device, driver=_nvidia_driver())
    else:
        yield Check("devices", "error", f"torch does not start: {found}", f"again {_INSTALL}")


def device_check(found: Torch, wanted: str, *, driver: bool) -> Check:
    """`wanted` is the setting; `driver`: whether the system has an NVIDIA GPU's driver."""
    finding = _described(found)
    if wanted.startswith("cuda"):
        number = int(wanted.partition(":")[2] or 0)
        if number >= len(found.gpus):
            return Check(
                "devices",
                "error",
                f"{finding}: there is no {wanted}, which PROMPTMILL_DEVICE asks for",
                "choose another device, or 'auto'",
            )
    if driver and not found.gpus:
        why = "and does not see it" if found.gpu_build else "and was built for the CPU alone"
        return Check(
            "devices",
            "warning",
            f"{finding}: this machine has an NVIDIA driver, torch {why}",
            "install the torch build that pytorch.org names for your driver",
        )
    return Check("devices", "ok", finding)


def _described(found: Torch) -> str:
    gpus = [
        f"cuda:{number} {name} with {gib(free)} free"
        for number, (name, free) in enumerate(found.gpus)
    ]
    return ", ".join([f"torch {found.version}", *gpus, f"CPU with {found.threads} threads"])


def _ask_torch() -> Torch | str:
    """What it says, or the last line of why it does not start."""
    done = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-c", _PROBE],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        complaint = done.stderr.strip().splitlines()
        return complaint[-1] if complaint else f"it ended with {done.returncode}"
    said = json.loads(done.stdout.splitlines()[-1])
    gpus = tuple((name, free) for name, free in said.pop("gpus"))
    return Torch(gpus=gpus, **said)


def _nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()
