"""What a model is cut into: each rank's heads, and which models can't be cut.

transformers has the plan: which weights are cut by rows, which by columns. Key heads that are
fewer than the ranks it can't cut; each rank gets a whole one then, which some others have too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from db.errors import ModelLoadError
from worker.engine.protocol import EngineConfig
from worker.engine.shared.backend import traits, why_not_continuous

#: transformers' names for what it does with a weight: cut it by its output, or leave it whole.
_CUT, _WHOLE = "colwise", "replicate"
_KEYS = ("k_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's part of a model."""

    rank: int
    size: int
    device: torch.device

    def arguments(self, shape: Any, config: EngineConfig) -> dict[str, Any]:
        """For `from_pretrained`, which then loads this rank's part alone.

        `shape` is the checkpoint's configuration. Raises ModelLoadError for a model that can't
        be cut so.
        """
        plan = cut(shape, config, self.size)
        return {"distributed_config": DistributedConfig(tp_size=self.size, tp_plan=plan)}

    def settle(self, model: Any) -> None:
        """Have a model that was loaded so say of itself what it is now: a shard.

        Whoever makes a cache for it, or sizes one, then needs to know nothing of the others.
        """
        model._device_mesh = None  # noqa: SLF001 - else continuous batching runs on every rank
        shape = model.config.get_text_config()
        heads = key_heads(shape)
        if not cuts_heads(model):
            return
        if heads % self.size == 0:
            shape.num_key_value_heads = heads // self.size
            return
        head = self.rank * heads // self.size
        own_queries = shape.num_attention_heads // self.size
        for module in list(model.modules()):
            if all(hasattr(module, name) for name in _KEYS):
                for name in _KEYS:
                    _keep(getattr(module, name), head, heads)
                module.num_key_value_groups = own_queries
        shape.num_key_value_heads = 1


def cut(shape: Any, config: EngineConfig, size: int) -> dict[str, str] | None:
    """What to add to transformers' plan of the model, if anything.

    Raises ModelLoadError for a model that can't be cut.
    """
    name = f"model '{config.model}'"
    if getattr(shape, "quantization_config", None) is not None:
        raise ModelLoadError(f"{name} is quantised: tensor_parallel takes unquantised weights only")
    if shape.is_encoder_decoder:
        raise ModelLoadError(_cannot(name, "it is an encoder-decoder"))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, trust_remote_code=config.trust_remote_code)
    reason = why_not_continuous(traits(model))
    if reason is not None:
        raise ModelLoadError(_cannot(name, reason))
    text = shape.get_text_config()
    if not text.base_model_tp_plan:
        raise ModelLoadError(
            _cannot(name, f"transformers has no plan for the architecture '{text.model_type}'")
        )
    if not cuts_heads(model):
        return None
    queries, keys = text.num_attention_heads, key_heads(text)
    if queries % size or (keys % size and size % keys):
        raise ModelLoadError(
            f"{name} has {queries} heads and {keys} key heads, which {size} devices can't share "
            f"evenly: set the engine option tensor_parallel to {_sizes(queries, keys)}"
        )
    if keys % size == 0:
        return None
    return {path: _WHOLE for path in model.tp_plan if path.rsplit(".", 1)[-1] in _KEYS}


def cuts_heads(model: Any) -> bool:
    """Whether each rank has heads of its own: else attention is every rank's whole."""
    plan = model.tp_plan or {}
    styles = {plan[path] for path in plan if path.rsplit(".", 1)[-1] in ("q_proj", *_KEYS)}
    return _CUT in styles


def key_heads(shape: Any) -> int:
    return int(getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads)


def _keep(projection: Any, head: int, heads: int) -> None:
    """Of a projection to all key heads, that of one."""
    width = projection.out_features // heads
    own = slice(head * width, (head + 1) * width)
    for name in ("weight", "bias"):
        whole = getattr(projection, name, None)
        if whole is not None:
            part = torch.nn.Parameter(whole.detach()[own].clone(), requires_grad=False)
            setattr(projection, name, part)
    projection.out_features = width


def _sizes(queries: int, keys: int) -> str:
    """Numbers of devices that would do, in words."""
    fit = [n for n in range(1, queries + 1) if not queries % n and (not keys % n or not n % keys)]
    return ", ".join(map(str, fit[:-1])) + f" or {fit[-1]}" if len(fit) > 1 else "1"


def _cannot(name: str, reason: str) -> str:
    return (
        f"{name} can't be shared between devices, as {reason}: leave the engine option "
        "tensor_parallel out, or use the engine vllm"
    )
