"""The model's files, as far as this machine has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from db.gguf import hub_file, is_gguf
from producer.doctor.check import Check, gib
from producer.model_files import (
    canonical_model,
    chat_template_state,
    find_model,
    is_complete,
    unpacked_bytes,
    weights_bytes,
)
from producer.servable import hub_is_forbidden


def model_checks(model: str, engine: str) -> Iterator[Check]:
    """Raises UsageError for what can't be a model's name."""
    name = canonical_model(model)
    if engine == "echo":
        yield Check("model", "ok", f"{name}: the engine echo needs no files")
        return
    if engine == "openai":
        yield Check("model", "ok", f"{name}: its endpoint has it; a worker asks when it starts")
        return
    folder = find_model(name)
    if folder is None:
        yield _absent(name)
        return
    problems = is_complete(folder)
    for problem in problems:
        yield Check("model", "error", problem)
    if not problems:
        yield complete_check(
            name,
            folder,
            weights_bytes(folder),
            unpacked=unpacked_bytes(folder),
            free_memory=psutil.virtual_memory().available,
        )


def complete_check(
    name: str, folder: Path, weights: int, *, free_memory: int, unpacked: int | None = None
) -> Check:
    """`weights`, what they take when they are loaded, and `free_memory` are in bytes."""
    chats = {
        "present": "takes chats",
        "absent": "has no chat template: takes prompts, not messages",
        "unknown": "its chat template is unknown here",
    }[chat_template_state(str(folder))]
    needed = weights if unpacked is None else unpacked
    loaded = f", {gib(needed)} when loaded" if needed != weights else ""
    finding = f"{name}: {gib(weights)} of weights in {folder}{loaded}, {chats}"
    if needed > free_memory:
        return Check(
            "model",
            "warning",
            f"{finding}; only {gib(free_memory)} of memory are free, which a CPU worker needs",
            "serve it on a GPU that has the memory, free some, or choose a smaller model",
        )
    return Check("model", "ok", finding)


def _absent(name: str) -> Check:
    if name.startswith("/"):
        kind = "file" if is_gguf(name) else "folder"
        finding = f"{name} is no {kind} of this machine"
        return Check("model", "warning", finding, "make sure that it is one on every worker")
    if hub_is_forbidden():
        finding = f"{name} is not on this machine, and HF_HUB_OFFLINE forbids downloading it"
        return Check("model", "error", finding, "unset HF_HUB_OFFLINE, or give a local folder")
    return Check(
        "model",
        "warning",
        f"{name} is not on this machine yet: a worker here downloads it when it starts",
        f"to have it before: hf download {' '.join(hub_file(name) or [name])}",
    )
