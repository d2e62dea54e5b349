"""Choosing the next token of every row on the host: the default engine's sampler in NumPy.

The steps, their order and the draw are those of `worker/engine/transformers/sampler.py`, which
says why; so the same seed draws the same token there and here, as far as the logits are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.engine.shared.rows import NOT_FINITE, Row

Floats = NDArray[np.float32] | NDArray[np.float64]

#: How many of the likeliest tokens are looked at before a top-p row is sorted in full.
NUCLEUS_GUESS = 256


def choose(logits: Floats, row: Row) -> int:
    """The next token id of one row of logits, `[vocabulary]`, which is not changed.

    NOT_FINITE where the best logit is none.
    """
    logits = _restricted(_penalised(logits, row), row)
    best = int(logits.argmax())
    if not np.isfinite(logits[best]):
        return NOT_FINITE
    if row.temperature == 0:
        return best
    # The best is subtracted before the division, so that no temperature overflows.
    with np.errstate(over="ignore"):
        relative = (logits.astype(np.float64) - float(logits[best])) / row.temperature
    vocabulary = len(logits)
    limit = row.top_k if 0 < row.top_k < vocabulary else vocabulary
    if limit == vocabulary and row.top_p == 1:
        return _inverse_cdf(_above_min_p(relative, row, np.exp(relative)), row.uniform)
    return _draw_narrow(relative, row, limit)


def logprobs(
    logits: Floats, token: int, alternatives: int
) -> tuple[float, list[tuple[int, float]]]:
    """Log-probabilities (nats) under softmax(logits): the token's, and of the likeliest ones.

    The likeliest come as (token, log-probability), best first.
    """
    exact = logits.astype(np.float64)
    best = exact.max()
    normaliser = best + np.log(np.exp(exact - best).sum())
    top = _likeliest(exact, min(alternatives, len(logits)))
    return float(exact[token] - normaliser), [
        (int(one), float(exact[one] - normaliser)) for one in top
    ]


def _penalised(logits: Floats, row: Row) -> Floats:
    """Divide positive and multiply negative logits of seen tokens by the penalty (CTRL, 2019)."""
    if row.repetition_penalty == 1 or not row.seen:
        return logits
    seen = np.asarray(row.seen)
    score = logits[seen]
    logits = logits.copy()
    penalty = np.asarray(row.repetition_penalty, logits.dtype)
    logits[seen] = np.where(score < 0, score * penalty, score / penalty)
    return logits


def _restricted(logits: Floats, row: Row) -> Floats:
    """-inf for every token that the row may not choose."""
    if row.allowed is None:
        return logits
    bits = np.unpackbits(row.allowed.view(np.uint8), count=len(logits), bitorder="little")
    return np.where(bits.view(np.bool_), logits, logits.dtype.type(-np.inf))


def _draw_narrow(relative: NDArray[np.float64], row: Row, limit: int) -> int:
    """Draw from the `limit` likeliest tokens and, of these, from the nucleus; best first."""
    vocabulary = len(relative)
    width = limit if limit < vocabulary else min(NUCLEUS_GUESS, vocabulary)
    total = None if limit < vocabulary else np.exp(relative).sum()
    while True:
        ids = _likeliest(relative, width)
        weights = np.exp(relative[ids])
        before = (weights.cumsum() - weights) / (weights.sum() if total is None else total)
        inside = before < row.top_p if row.top_p < 1 else np.ones(width, bool)
        if width >= limit or not inside[-1]:
            break
        width = limit
    inside[0] = True
    kept = _above_min_p(relative[ids], row, np.where(inside, weights, 0.0))
    return int(ids[_inverse_cdf(kept, row.uniform)])


def _likeliest(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Places of the `count` largest values, largest first, the first of equal ones first."""
    if count == 0:
        return np.empty(0, np.intp)
    if count < len(values):
        edge = np.partition(values, len(values) - count)[len(values) - count]
        places = np.concatenate([np.flatnonzero(values > edge), np.flatnonzero(values == edge)])
        places = places[:count]
    else:
        places = np.arange(len(values))
    return places[np.lexsort((places, -values[places]))]


def _above_min_p(
    relative: NDArray[np.float64], row: Row, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Zero the weight of tokens below min_p of the best; `relative` is log(weight / best)."""
    if row.min_p == 0:
        return weights
    return np.where(relative < np.log(row.min_p), 0.0, weights)


def _inverse_cdf(weights: NDArray[np.float64], uniform: float) -> int:
    """The first place at which the cumulative weight passes the uniform share."""
    cumulative = weights.cumsum()
    total = cumulative[-1]
    # Strictly below the total, whatever rounding did: else a place of no weight is drawn.
    target = min(uniform * total, np.nextafter(total, 0.0))
    return int(np.searchsorted(cumulative, target, side="right"))
