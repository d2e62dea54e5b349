"""How a batch's jobs were asked for: seed and parameters as a worker has them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from db.errors import ParameterError
from db.exact_json import dumps, loads
from db.modes import Mode
from db.sampling import SamplingParams, in_force, merge, seed_of

#: Different sets of parameters that are remembered: most lines of a batch override the same, or
#: nothing.
_REMEMBERED = 256

#: An enum's attributes, and their hashes, are slow to ask for once a job.
_GENERATE = Mode.GENERATE


@dataclass(frozen=True, slots=True)
class Recipes:
    """Seeds and parameters of one batch's jobs, a million of them if need be. Light to send."""

    batch_uid: str
    #: JSON of the batch's parameters.
    defaults: bytes
    mode: Mode = Mode.GENERATE

    def of(self, line: int, overrides: str | None) -> tuple[int | None, str | None]:
        """The job's seed, and its parameters in force as JSON; None for what is no valid set.

        No seed where nothing is drawn: of scores and embeddings.
        `overrides`: JSON of the line's own parameters; None: it has none.
        """
        if self.mode is not _GENERATE:
            return None, _merged(self.defaults, overrides, self.mode)[1]
        seed, params = _merged(self.defaults, overrides)
        if seed is None and params is not None:
            seed = seed_of(self.batch_uid, line)
        return seed, params


@lru_cache(maxsize=_REMEMBERED)
def _merged(
    defaults: bytes, overrides: str | None, mode: Mode = Mode.GENERATE
) -> tuple[int | None, str | None]:
    own = loads(overrides) if overrides else {}
    try:
        params = merge(loads(defaults), own, mode)
    except ParameterError:
        return None, None
    seed = params.seed if isinstance(params, SamplingParams) else None
    return seed, dumps(in_force(params)).decode()
