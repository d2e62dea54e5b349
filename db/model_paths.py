"""A model's name that is meant as a path of this machine, but names nothing there."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from db.gguf import hub_file, is_gguf

#: Models of a folder that a message lists.
_LISTED = 4
#: No organisation of the hub can have this name.
_NO_ORGANISATION = "models"


def missing_path(model: str) -> str | None:
    """What is wrong with a path that does not exist, and what to do; None: nothing is.

    A name is meant as a path where its folder is here and holds models. Any other name may be a
    hub id, or a path that only the workers have.
    """
    path = Path(model)
    if hub_file(model) is not None or path.exists():
        return None
    meant = nearest_path(model)
    folder = _folder(path)
    if folder is None:
        return None
    if meant is None and not _is_for_models(folder):
        return None
    advice = f"did you mean {meant}?" if meant is not None else _content(folder)
    return f"no such file or folder: {advice}{_as_hub_id(path)}"


def nearest_path(model: str) -> str | None:
    """The path of a model here whose name is most like this one; None: none is like it."""
    path = Path(model)
    folder = path.parent if path.parent == Path() else _folder(path)
    if folder is None or not folder.is_dir():
        return None
    name = path.relative_to(folder).parts[0] if path != folder else ""
    names = {_key(entry.name): entry.name for entry in _models(folder)}
    near = get_close_matches(_key(name), names, n=1)
    longer = sorted(key for key in names if len(name) > 1 and key.startswith(_key(name)))
    best = next(iter((*near, *longer)), None)
    return None if best is None else str(folder / names[best])


def _folder(path: Path) -> Path | None:
    """The folder of this machine that a path leads into; None: it names none.

    Of an absolute path it is the one that it names: what is above may be alike on every host.
    """
    above = path.parents[:1] if path.is_absolute() else path.parents[:-1]
    return next((one for one in above if one.is_dir() and one != Path(path.anchor)), None)


def _is_for_models(folder: Path) -> bool:
    return str(folder) == _NO_ORGANISATION or bool(_models(folder))


def _models(folder: Path) -> list[Path]:
    """The models that lie in a folder, by name; none where it can't be read."""
    try:
        return sorted(entry for entry in folder.iterdir() if _is_model(entry))
    except OSError:  # a folder that this user may not read
        return []


def _is_model(entry: Path) -> bool:
    if entry.is_file():
        return is_gguf(entry.name)
    return (entry / "config.json").is_file() or any(entry.glob("*.gguf"))


def _content(folder: Path) -> str:
    names = [entry.name for entry in _models(folder)]
    if not names:
        return f"{folder} holds no model"
    more = ["…"] if len(names) > _LISTED else []
    return f"{folder} holds {', '.join(names[:_LISTED] + more)}"


def _as_hub_id(path: Path) -> str:
    """How to say that the hub's model is meant, where it may be."""
    organisation = path.parts[0]
    if path.is_absolute() or len(path.parts) != 2 or organisation == _NO_ORGANISATION:
        return ""
    return f" For the hub's {path}, run this where there is no folder {organisation}"


def _key(name: str) -> str:
    """What is compared: neither capitals nor a suffix make two names differ."""
    return name.lower().removesuffix(".gguf")
