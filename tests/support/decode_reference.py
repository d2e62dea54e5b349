"""What `decode_kernel.decode` computes, in plain PyTorch, for machines without a GPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    lengths: Tensor,
    scale: float,
    page: int,
) -> Tensor:
    """One sequence after the other; arguments and result are the kernel's."""
    output = torch.zeros_like(query)
    for place, length in enumerate(lengths.tolist()):
        if not length:
            continue
        tokens = torch.arange(length, device=query.device)
        slots = table[place, tokens // page].long() * page + tokens % page
        output[place] = scaled_dot_product_attention(
            query[place].unsqueeze(1).unsqueeze(0),
            keys[slots].transpose(0, 1).unsqueeze(0),
            values[slots].transpose(0, 1).unsqueeze(0),
            scale=scale,
            enable_gqa=True,
        )[0, :, 0]
    return output
