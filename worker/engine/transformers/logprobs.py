"""Log-probabilities of chosen tokens, computed only for the rows that want them."""

from __future__ import annotations

import torch

from worker.engine.shared.continuation import Continuation
from worker.engine.shared.detokenizer import TokenScore
from worker.engine.transformers import sampler


def record_logprobs(
    continuations: list[Continuation], logits: torch.Tensor, tokens: torch.Tensor
) -> None:
    """Append each chosen token's log-probability to the continuations that want them."""
    places = [place for place, one in enumerate(continuations) if one.params.wants_logprobs]
    if not places:
        return
    chosen = torch.tensor(places, device=logits.device)
    most = max(continuations[place].params.alternatives for place in places)
    own, ids, values = sampler.logprobs(logits[chosen], tokens[chosen], most)
    token_ids = tokens[chosen].tolist()
    for at, place in enumerate(places):
        wanted = continuations[place].params.alternatives
        if token_ids[at] == sampler.NOT_FINITE:
            continue
        top = tuple(zip(ids[at][:wanted], values[at][:wanted], strict=True))
        continuations[place].scores.append(TokenScore(token_ids[at], own[at], top))
