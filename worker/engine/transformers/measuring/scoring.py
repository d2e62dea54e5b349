"""Scores and embeddings of a batch of texts, by one pass of the model's body."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from db.modes import EmbedParams
from worker.engine.protocol import Embedded, Failed, Scored, ScoreRequest, TokenLogprob
from worker.engine.shared.detokenizer import TokenScore
from worker.engine.transformers.measuring.body import Body
from worker.engine.transformers.measuring.measurement import Measuring

#: Names the tokens that are scored behind a prompt of these ids.
Logprobs = Callable[[Iterable[TokenScore], Sequence[int]], tuple[TokenLogprob, ...]]

#: A token's own log-probability, and the likeliest ones at its place.
_Place = tuple[float, list[tuple[int, float]]]


def measure(body: Body, batch: Sequence[Measuring], logprobs: Logprobs) -> None:
    """Fill in the outcomes. All are of one kind; the caller has the model's turn."""
    now = time.time()
    for one in batch:
        one.started_at = one.started_at or now
    if isinstance(batch[0].request, ScoreRequest):
        _score(body, batch, logprobs)
    else:
        _embed(body, batch)


def _score(body: Body, batch: Sequence[Measuring], logprobs: Logprobs) -> None:
    states = body.states_before(
        [one.prompt_ids for one in batch], [one.scored_ids for one in batch]
    )
    tokens = torch.tensor([token for one in batch for token in one.scored_ids])
    most = max(_alternatives(one) for one in batch)
    places: list[_Place] = []
    for logits, chosen in zip(body.logits(states), torch.split(tokens, body.piece), strict=True):
        places += _places(logits, chosen, most)
    first = 0
    for one in batch:
        last = first + len(one.scored_ids)
        one.outcome = _scored(one, places[first:last], logprobs)
        first = last


def _places(logits: Tensor, tokens: Tensor, alternatives: int) -> list[_Place]:
    """Of the logits `[tokens, vocabulary]` at the places of these tokens."""
    # Several times quicker on a CPU than logsumexp, and as exact, for the room of another piece.
    likely = logits.log_softmax(dim=-1)
    own = likely.gather(1, tokens.to(likely.device).unsqueeze(1)).squeeze(1).tolist()
    if not alternatives:
        return [(one, []) for one in own]
    top = likely.topk(min(alternatives, likely.shape[-1]), dim=-1)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    likeliest = [list(zip(ids, values, strict=True)) for ids, values in pairs]
    return list(zip(own, likeliest, strict=True))


def _alternatives(one: Measuring) -> int:
    return one.request.params.alternatives if isinstance(one.request, ScoreRequest) else 0


def _scored(one: Measuring, places: Sequence[_Place], logprobs: Logprobs) -> Scored | Failed:
    total = math.fsum(own for own, _ in places)
    if not math.isfinite(total):
        return _not_finite()
    wanted = isinstance(one.request, ScoreRequest) and one.request.params.wants_logprobs
    return Scored(
        logprob=total,
        tokens=len(places),
        prompt_tokens=len(one.prompt_ids),
        started_at=one.started_at,
        logprobs=logprobs(_token_scores(one, places), one.prompt_ids) if wanted else None,
    )


def _token_scores(one: Measuring, places: Sequence[_Place]) -> list[TokenScore]:
    count = _alternatives(one)
    return [
        TokenScore(token, own, tuple(likeliest[:count]))
        for token, (own, likeliest) in zip(one.scored_ids, places, strict=True)
    ]


def _embed(body: Body, batch: Sequence[Measuring]) -> None:
    states = body.states([one.prompt_ids for one in batch])
    for one, row in zip(batch, states, strict=True):
        params = one.request.params
        if isinstance(params, EmbedParams):
            one.outcome = _embedded(one, params, pooled(row[: one.tokens], params))


def pooled(states: Tensor, params: EmbedParams) -> Tensor:
    """One vector of a text's states `[tokens, width]`: `[width]` float32."""
    match params.pooling:
        case "mean":
            vector = states.float().mean(dim=0)
        case "last":
            vector = states[-1].float()
        case "first":
            vector = states[0].float()
    return torch.nn.functional.normalize(vector, dim=0) if params.normalize else vector


def _embedded(one: Measuring, params: EmbedParams, vector: Tensor) -> Embedded | Failed:
    stored = vector.half() if params.precision == "float16" else vector
    if not bool(stored.isfinite().all()):
        return _not_finite()
    return Embedded(
        vector=array("f", stored.tolist()),
        precision=params.precision,
        prompt_tokens=len(one.prompt_ids),
        started_at=one.started_at,
    )


def _not_finite() -> Failed:
    return Failed(
        "not_finite",
        "the model's numbers are not finite (NaN or infinite), or too large for float16: load it "
        "in float32 or bfloat16, and store float32",
    )
