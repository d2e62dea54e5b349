"""Whether `db`, `producer` and `worker` are promptmill's own: users' files have these names too."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

#: Our packages with names that others may have.
_PACKAGES = ("db", "producer", "worker")


def shadowed_package() -> str | None:
    """What hides one of our packages, and what to do about it; None: nothing does."""
    root = Path(__file__).resolve().parents[1]
    for name in _PACKAGES:
        found = _file_of(name)
        if found is None or found.resolve() != root / name / "__init__.py":
            return (
                f"promptmill's package '{name}' is hidden by {found or 'something without a file'}"
                ": rename that, or take its folder off Python's path (PYTHONPATH, the script's own "
                "folder, or the one that Python is started in)"
            )
    return None


def require_own_packages() -> None:
    """Raise ImportError, naming the file, where another module hides one of our packages."""
    problem = shadowed_package()
    if problem is not None:
        raise ImportError(problem)


def _file_of(name: str) -> Path | None:
    """The file that Python has imported under this name, or would import."""
    if (imported := sys.modules.get(name)) is not None:
        file = getattr(imported, "__file__", None)
        places = list(getattr(imported, "__path__", ()))
    else:
        spec = find_spec(name)
        file = spec.origin if spec is not None else None
        places = list((spec and spec.submodule_search_locations) or ())
    place = file or next(iter(places), None)
    return Path(place) if place is not None else None
