"""LoRA adapters in vLLM's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.engine.shared.adapter_files import AdapterFiles, bad_adapter

#: Ranks that vLLM makes room for; its room is for the largest of all.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def arguments(adapters: Sequence[AdapterFiles], there: str) -> dict[str, Any]:
    """What of AsyncEngineArgs depends on them; `there`: what vLLM is built for, as `cpu`.

    Raises ModelLoadError for one that it can't take.
    """
    for one in adapters:
        if one.ranks or one.alphas:
            raise bad_adapter(
                one.name,
                "has rank_pattern or alpha_pattern, which vLLM passes over: use the engine "
                "transformers",
            )
        if one.rank > RANKS[-1]:
            raise bad_adapter(one.name, f"has rank {one.rank}, and vLLM takes {RANKS[-1]} at most")
    if not adapters:
        return {}
    largest = max(one.rank for one in adapters)
    return {
        "enable_lora": True,
        # On a CPU, vLLM 0.32 gives a request without an adapter the one in the last place: there
        # is one more, which stays empty and adds nothing.
        "max_loras": len(adapters) + (there == "cpu"),
        "max_lora_rank": next(rank for rank in RANKS if rank >= largest),
    }


def lora_requests(adapters: Sequence[AdapterFiles]) -> Mapping[str | None, Any]:
    """By name what vLLM's `generate` is told; None, the plain model, needs nothing."""
    if not adapters:
        return {None: None}
    from vllm.lora.request import LoRARequest

    return {
        None: None,
        **{
            one.name: LoRARequest(one.name, number, str(one.folder.resolve()))
            for number, one in enumerate(adapters, start=1)
        },
    }
