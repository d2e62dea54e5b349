"""Choosing the next token of every row of a batch, each row under its own parameters.

Pure functions on tensors: no model, no request, no state. The order and the meaning of the
steps are those of transformers' warpers (repetition penalty, temperature, top-k, top-p, min-p),
with two differences: top-k keeps exactly k tokens where logits tie, and the draw is an inverse
CDF at a uniform number that depends on the row's seed, sample and position alone. So a row
gets the same token whatever shares its batch, as far as its logits are the same.

Vocabularies are large (Gemma's has 262,144 tokens), so no row pays for a full sort unless its
nucleus is wider than NUCLEUS_GUESS tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worker.engine.shared.rows import NOT_FINITE, Row, uniform

__all__ = ["NOT_FINITE", "Row", "choose", "likeliest", "logprobs", "uniform"]

#: Tokens of a block whose best is looked for first, on a CPU.
BLOCK = 128

#: How many of the likeliest tokens are looked at before a top-p row is sorted in full.
NUCLEUS_GUESS = 256


def choose(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """The next token id of every row: `[rows]` int64, on the device of the logits.

    `logits` is `[rows, vocabulary]` float32 and is not changed. NOT_FINITE where a row has no
    finite best logit.
    """
    logits = _restricted(_penalised(logits, rows), rows)
    best, tokens = likeliest(logits)
    sampled = [place for place, row in enumerate(rows) if row.temperature > 0]
    narrow = [place for place in sampled if _is_filtered(rows[place], logits.shape[-1])]
    wide = [place for place in sampled if not _is_filtered(rows[place], logits.shape[-1])]
    for places, draw in ((wide, _draw_wide), (narrow, _draw_narrow)):
        if places:
            chosen = _index(places, logits)
            subset = logits if len(places) == len(rows) else logits[chosen]
            tokens[chosen] = draw(subset, [rows[place] for place in places])
    return torch.where(best.isfinite(), tokens, NOT_FINITE)


def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The best logit of every row and its token, the first of equal ones: `[rows]` each.

    On a CPU a maximum is vectorised, one with its place is not: so the best block is found first
    and the place within it alone.
    """
    rows, vocabulary = logits.shape
    if logits.device.type != "cpu" or vocabulary % BLOCK:
        best, tokens = logits.max(dim=-1)
        return best, tokens
    blocks = logits.reshape(rows, vocabulary // BLOCK, BLOCK)
    best, block = blocks.amax(dim=-1).max(dim=-1)
    within = blocks[torch.arange(rows), block].argmax(dim=-1)
    return best, block * BLOCK + within


def logprobs(
    logits: Tensor, tokens: Tensor, alternatives: int
) -> tuple[list[float], list[list[int]], list[list[float]]]:
    """Log-probabilities (nats) under softmax(logits), on the host.

    Of `tokens` (`[rows]`), and the ids and log-probabilities of the `alternatives` likeliest
    tokens of each row, best first.
    """
    normaliser = logits.logsumexp(dim=-1, keepdim=True)
    own = logits.gather(1, tokens.clamp(min=0).unsqueeze(1)) - normaliser
    top = logits.topk(min(alternatives, logits.shape[-1]), dim=-1)
    return own.squeeze(1).tolist(), top.indices.tolist(), (top.values - normaliser).tolist()


def _is_filtered(row: Row, vocabulary: int) -> bool:
    return row.top_p < 1 or 0 < row.top_k < vocabulary


def _penalised(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Divide positive and multiply negative logits of seen tokens by the penalty (CTRL, 2019)."""
    penalised = [(place, row) for place, row in enumerate(rows) if row.repetition_penalty != 1]
    if not penalised:
        return logits
    place_of = [place for place, row in penalised for _ in row.seen]
    token_of = [token for _, row in penalised for token in row.seen]
    penalty_of = [row.repetition_penalty for _, row in penalised for _ in row.seen]
    where = (_index(place_of, logits), _index(token_of, logits))
    penalty = _column(penalty_of, logits)
    score = logits[where]
    return logits.index_put(where, torch.where(score < 0, score * penalty, score / penalty))


def _restricted(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """-inf for every token that a row may not choose."""
    masks = {place: row.allowed for place, row in enumerate(rows) if row.allowed is not None}
    if not masks:
        return logits
    places = _index(list(masks), logits)
    together, vocabulary = torch.from_numpy(np.stack(list(masks.values()))), logits.shape[1]
    if logits.device.type == "cpu":
        hidden = forbidden(together, vocabulary)
    else:
        hidden = forbidden_on_device(together.to(logits.device), vocabulary)
    if len(masks) == len(rows):
        return logits.masked_fill(hidden, -torch.inf)
    return logits.index_put((places,), logits[places].masked_fill(hidden, -torch.inf))


def forbidden(masks: Tensor, vocabulary: int) -> Tensor:
    """Bits to bools, True where a bit is not set: `[rows, vocabulary]`, on the host."""
    cleared = np.invert(masks.numpy().view(np.uint8))
    bits = np.unpackbits(cleared, axis=1, count=vocabulary, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool)


def forbidden_on_device(masks: Tensor, vocabulary: int) -> Tensor:
    """The same, where the masks are."""
    shifts = torch.arange(32, dtype=torch.int32, device=masks.device)
    spread = (masks.unsqueeze(2) >> shifts) & 1
    return (spread == 0).flatten(1)[:, :vocabulary]


def _draw_wide(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Rows that may draw from the whole vocabulary: no sort, the CDF runs in token order."""
    relative = _tempered(logits, rows)
    weights = _above_min_p(relative, rows, relative.exp())
    return _inverse_cdf(weights, rows)


def _draw_narrow(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Rows with top-k or top-p: the CDF runs over the likeliest tokens, best first."""
    vocabulary = logits.shape[-1]
    relative = _tempered(logits, rows)
    limits = [row.top_k if row.top_k > 0 else vocabulary for row in rows]
    guesses = [limit if limit < vocabulary else NUCLEUS_GUESS for limit in limits]
    tokens, complete = _nucleus(relative, rows, limits, min(max(guesses), vocabulary))
    unsure = [] if complete is None else (~complete).nonzero().flatten().tolist()
    if unsure:
        again = _index(unsure, logits)
        picked = [rows[place] for place in unsure]
        kept = [limits[place] for place in unsure]
        tokens[again], _ = _nucleus(relative[again], picked, kept, vocabulary)
    return tokens


def _nucleus(
    relative: Tensor, rows: Sequence[Row], limits: Sequence[int], width: int
) -> tuple[Tensor, Tensor | None]:
    """Draw from each row's `width` likeliest tokens, of which it may take `limits`.

    Also says of each row whether these hold its whole nucleus; None: of all rows they do.
    """
    values, ids = relative.topk(width, dim=-1)
    rank = torch.arange(width, device=relative.device)
    limit = _index(limits, relative)
    weights = values.exp().masked_fill(rank >= limit.unsqueeze(1), 0.0)
    total = weights.sum(dim=-1)
    cut_short = limit > width
    if max(limits) > width:  # top-p without top-k is a share of the whole vocabulary
        total = torch.where(cut_short, relative.exp().sum(dim=-1), total)
    top_p = _column([row.top_p if row.top_p < 1 else math.inf for row in rows], relative)
    share = weights.cumsum(dim=-1) / total.unsqueeze(1)
    outside = share - weights / total.unsqueeze(1) >= top_p.unsqueeze(1)
    outside[:, 0] = False
    kept = _above_min_p(values, rows, weights.masked_fill(outside, 0.0))
    tokens = ids.gather(1, _inverse_cdf(kept, rows).unsqueeze(1)).squeeze(1)
    complete = ~cut_short | (share[:, -1] >= top_p) if max(limits) > width else None
    return tokens, complete


def _tempered(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """log(weight / best weight) of every token: 0 for the likeliest, below for the others.

    The best is subtracted before the division, so that no temperature overflows.
    """
    coldest = torch.finfo(logits.dtype).tiny
    temperature = _column([max(row.temperature, coldest) for row in rows], logits)
    return (logits - logits.amax(dim=-1, keepdim=True)) / temperature.unsqueeze(1)


def _above_min_p(relative: Tensor, rows: Sequence[Row], weights: Tensor) -> Tensor:
    """Zero the weight of tokens below min_p of the best; `relative` is log(weight / best)."""
    if all(row.min_p == 0 for row in rows):
        return weights
    floor = _column([row.min_p for row in rows], relative).log().unsqueeze(1)
    return weights.masked_fill(relative < floor, 0.0)


def _inverse_cdf(weights: Tensor, rows: Sequence[Row]) -> Tensor:
    """The first column at which the cumulative weight passes the row's uniform share."""
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:]
    target = _column([row.uniform for row in rows], weights).unsqueeze(1) * total
    # Strictly below the total, whatever rounding did: else a column of no weight is drawn.
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    return place.clamp(max=weights.shape[-1] - 1)


def _index(values: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=like.device)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)
