"""Whether `db` and `worker` are promptmill's own: their names are common ones."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def stranger() -> str | None:
    """What to tell of another package that Python finds under one of our names; None if none."""
    here = Path(__file__).parents[1]
    for name in ("db", "worker"):
        spec = find_spec(name)
        found = Path(spec.origin) if spec is not None and spec.origin is not None else None
        if found is None or found.parents[1] != here:
            place = found or (spec and list(spec.submodule_search_locations or ())) or "nowhere"
            return (
                f"its package '{name}' is hidden by another one, {place}: take that folder "
                "off Python's path (PYTHONPATH, or the folder that you start Python in)"
            )
    return None
