"""What one row of logits is sampled with, whoever samples: PyTorch, or NumPy for Keras."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: A token id that stands for "the model gave no finite probabilities" (NaN or all -inf).
NOT_FINITE = -1


@dataclass(frozen=True, slots=True)
class Row:
    """What one row of logits is sampled with; the fields mean what SamplingParams says."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    #: Distinct token ids of prompt and text so far; read only under a repetition penalty.
    seen: Sequence[int] = ()
    #: A bit a token that may come: `[vocabulary / 32]` int32. None: any may.
    allowed: NDArray[np.int32] | None = None
    #: In [0, 1): where on the cumulative distribution the token is drawn.
    uniform: float = 0.0


def uniform(seed: int, index: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits, fixed by its arguments on every machine.

    `index` is the sample's, `position` counts the tokens generated before this one.
    """
    key = b"%d:%d:%d" % (seed, index, position)
    return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 11) * 2**-53
