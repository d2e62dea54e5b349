"""An adapter that a request names and the engine has not."""

from __future__ import annotations

from collections.abc import Collection

from worker.engine.protocol import Failed


def unknown_adapter(name: str | None, loaded: Collection[str]) -> Failed | None:
    """Why a request for this adapter can't be worked on; None: it can."""
    if name is None or name in loaded:
        return None
    there = f"loaded are {', '.join(sorted(loaded))}" if loaded else "none is loaded"
    return Failed(
        "unknown_adapter",
        f"this worker has no adapter '{name}' ({there}): start every worker of the queue with "
        f"--adapter {name}=PATH, then retry",
    )
