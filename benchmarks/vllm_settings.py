"""The settings that vLLM's documentation recommends for offline generation on a CPU.

Source: vLLM's installation guide for CPUs, "Performance tips" and "Set LD_PRELOAD". By default
vLLM leaves cores unused: it reserves some for a server's front end, which a batch has not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")

#: Gigabytes for the KV cache: room for all prompts of the benchmark at once.
_CACHE_GIB = 4

#: Libraries that the guide preloads: an allocator, and Intel's OpenMP.
_ALLOCATORS = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")


def best_settings(python: Path) -> dict[str, str]:
    """Environment variables for a vLLM process that the interpreter `python` runs."""
    cores = physical_cores(os.sched_getaffinity(0), sibling_lists())
    settings = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": str(_CACHE_GIB),
    }
    libraries = list(preloadable(python.parents[1] / "lib"))
    if libraries:
        settings["LD_PRELOAD"] = ":".join(map(str, libraries))
    return settings


def physical_cores(allowed: Collection[int], siblings: Iterable[str]) -> list[int]:
    """One logical CPU of each physical core, of those `allowed`.

    `siblings`: for each logical CPU the kernel's list of those that share its core, as `0,8` or
    `0-1`.
    """
    cores = {min(usable) for text in siblings if (usable := _numbers(text) & set(allowed))}
    return sorted(cores) or sorted(allowed)


def sibling_lists() -> list[str]:
    """The kernel's `thread_siblings_list` of every logical CPU."""
    files = _TOPOLOGY.glob("cpu[0-9]*/topology/thread_siblings_list")
    return [file.read_text() for file in files]


def preloadable(environment: Path) -> Iterable[Path]:
    """What the guide preloads and this machine has: the system's TCMalloc, the peer's libiomp5."""
    candidates = (Path(folder) / name for name in _ALLOCATORS for folder in _LIBRARY_FOLDERS)
    allocator = next((path for path in candidates if path.exists()), None)
    if allocator is not None:
        yield allocator
    openmp = environment / "libiomp5.so"  # of the package intel-openmp
    if openmp.exists():
        yield openmp


def described(settings: dict[str, str]) -> str:
    """The settings in one line, libraries without their folders."""
    parts = []
    for name, value in settings.items():
        short = ":".join(Path(path).name for path in value.split(":"))
        parts.append(f"{name}={short if name == 'LD_PRELOAD' else value}")
    return " ".join(parts)


def _numbers(text: str) -> set[int]:
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers
