"""Whether a prompt fits a model, and how many tokens its text may get. Pure."""

from __future__ import annotations

from db.sampling import SamplingParams
from worker.engine.protocol import Failed


def room(
    length: int,
    params: SamplingParams,
    *,
    context_length: int | None,
    longest: int | None = None,
    joined: bool = True,
) -> int | Failed:
    """New tokens that each sample may get, at least 1; Failed where none fits.

    `length`: tokens of the prompt. `context_length`: what the model takes, `longest`: what the KV
    cache holds of one sample; None: no limit. `joined`: prompt and text share both, as everywhere
    but in an encoder-decoder.
    """
    needed = length + 1 if joined else length
    if context_length is not None and needed > context_length:
        what = "prompt and text together" if joined else "prompt"
        return Failed(
            "prompt_too_long",
            f"the prompt has {length} tokens and the model takes {context_length} of {what}: "
            "shorten it",
        )
    if longest is not None and length + 1 > longest:
        return Failed(
            "kv_cache_too_small",
            f"the prompt has {length} tokens and the KV cache holds {longest} of one request: "
            "shorten it, raise the memory fraction or use a larger device",
        )
    bounds = [bound for bound in (context_length, longest) if bound is not None]
    limit = params.token_limit(length if joined else 1, min(bounds, default=None))
    if limit < 1:
        return Failed(
            "prompt_too_long",
            f"the prompt has {length} tokens and max_length is {params.max_length}, which "
            "counts them too: raise it, or give max_tokens",
        )
    return limit


def strange_stop(params: SamplingParams, vocabulary: int) -> Failed | None:
    """Why its stop tokens are none of this model's; None: they are."""
    strange = [token for token in params.stop_token_ids if token >= vocabulary]
    if not strange:
        return None
    return Failed(
        "bad_stop_token",
        f"stop_token_ids: {strange[0]} is no token of this model, which has {vocabulary}",
    )
