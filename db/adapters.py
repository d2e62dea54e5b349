"""LoRA adapters: what may be their names, and which of a worker's a job used. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated

import orjson
from pydantic import AfterValidator

from db.errors import UsageError

#: Characters of a name.
MAX_NAME = 128

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def check_name(name: str) -> str:
    """The name itself. Raises ValueError for one that no adapter can have."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(f"give 1 to {MAX_NAME} letters, digits and any of - _ .")
    return name


def check_names(names: Iterable[str], model: str | None) -> None:
    """Raises UsageError for every name that no adapter beside this model can have."""
    faults = []
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            faults.append(f"adapter '{name[:MAX_NAME]}': {error}")
            continue
        if name == model:
            faults.append(f"adapter '{name}': that is the model's own name: choose another")
    if faults:
        raise UsageError(*faults)


def _parameter(name: str | None) -> str | None:
    return check_name(name) if name else None


#: A parameter: the adapter that the model works with. None, or "": the plain model.
AdapterName = Annotated[str | None, AfterValidator(_parameter)]


@lru_cache(maxsize=256)
def used_adapter(adapters: str | None, params: str | None) -> str | None:
    """The digest of the adapter that a job was made with; None: it had none.

    `adapters`: JSON of its worker's, name -> digest. `params`: JSON of its parameters in force.
    """
    if adapters is None or params is None:
        return None
    name = orjson.loads(params).get("adapter")
    digest = orjson.loads(adapters).get(name) if name else None
    return None if digest is None else str(digest)
