"""Log-probabilities of chosen tokens, computed only for the rows that want them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from worker.engine.protocol import TokenLogprob
from worker.engine.shared.continuation import Continuation
from worker.engine.transformers import sampler


def record_logprobs(
    continuations: list[Continuation],
    logits: torch.Tensor,
    tokens: torch.Tensor,
    token_text: Callable[[int], str],
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
        top = zip(ids[at][:wanted], values[at][:wanted], strict=True)
        continuations[place].logprobs.append(
            TokenLogprob(
                token=token_text(token_ids[at]),
                token_id=token_ids[at],
                logprob=own[at],
                top=tuple((token_text(one), one, value) for one, value in top),
            )
        )
