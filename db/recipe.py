"""How a batch's jobs were asked for: seed and parameters as a worker has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from db.errors import ParameterError
from db.sampling import in_force, merge, seed_of

#: Different sets of parameters that are remembered.
_REMEMBERED = 256


class Recipes:
    """Seeds and parameters of one batch's jobs, a million of them if need be."""

    def __init__(self, batch_uid: str, defaults: Mapping[str, Any]) -> None:
        self._batch_uid = batch_uid
        self._defaults = defaults
        # Most lines of a batch override the same, or nothing.
        self._shared = lru_cache(maxsize=_REMEMBERED)(self._merged)

    def of(self, line: int, overrides: str | None) -> tuple[int | None, str | None]:
        """The job's seed, and its parameters in force as JSON; None for what is no valid set.

        `overrides`: JSON of the line's own parameters; None: it has none.
        """
        seed, params = self._shared(overrides)
        if seed is None and params is not None:
            seed = seed_of(self._batch_uid, line)
        return seed, params

    def _merged(self, overrides: str | None) -> tuple[int | None, str | None]:
        try:
            params = merge(self._defaults, orjson.loads(overrides) if overrides else {})
        except ParameterError:
            return None, None
        return params.seed, orjson.dumps(in_force(params)).decode()
