"""Whole matrices of cases take minutes: `make test` runs a few of each, `make test-engines` all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

#: Set by `make test-engines`.
WHOLE = "PROMPTMILL_TEST_WHOLE"

T = TypeVar("T")


def of_matrix(cases: Sequence[T], *few: str) -> list[T]:
    """All cases where all are asked for, else those of these names, each of which must be there."""
    names = {str(getattr(case, "name", case)): case for case in cases}
    chosen = [names[name] for name in few]
    return list(cases) if WHOLE in os.environ else chosen
