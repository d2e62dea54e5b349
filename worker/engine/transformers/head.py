"""The vocabulary projection on a CPU, a piece of the vocabulary at a time.

It is the widest product of a small model (Gemma 3 270M: 262,144 rows of 640), and the slowest by
operation: a few samples against a matrix far larger than any cache, into fresh memory. In pieces,
each result is still in the cache when it is taken over as float32 into memory that is kept from
step to step. The numbers are those of the whole product, but for the order of float32 sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

#: Tokens of a smaller vocabulary make no difference.
SMALLEST = 16_384
#: Tokens of a piece. float32: weights times samples, which spares the packing of the weights.
#: Narrower types: samples times weights, as oneDNN's kernels for them want it.
_PIECE_FLOAT32 = 4_096
_PIECE_NARROW = 16_384
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def in_pieces(hidden: Tensor, weight: Tensor, logits: Tensor) -> None:
    """Write `hidden @ weight.T` into `logits`.

    `hidden` is `[rows, size]`, `weight` `[vocabulary, size]`, both of one type; `logits` is
    `[rows, vocabulary]` float32.
    """
    if weight.dtype == torch.float32:
        _weights_first(hidden, weight, logits)
    else:
        _rows_first(hidden, weight, logits)


def _weights_first(hidden: Tensor, weight: Tensor, logits: Tensor) -> None:
    columns = hidden.T.contiguous()
    piece = torch.empty(_PIECE_FLOAT32, hidden.shape[0])
    for part, into in _pieces(weight, logits, _PIECE_FLOAT32):
        product = torch.mm(part, columns, out=piece[: part.shape[0]])
        into.copy_(product.T)


def _rows_first(hidden: Tensor, weight: Tensor, logits: Tensor) -> None:
    for part, into in _pieces(weight, logits, _PIECE_NARROW):
        into.copy_(torch.mm(hidden, part.T))


def _pieces(weight: Tensor, logits: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(weight, size), torch.split(logits, size, dim=1), strict=True)


def suits(model: Any) -> bool:
    """Whether pieces are worth it: a plain, large projection on a CPU."""
    head: Any = model.get_output_embeddings()
    return bool(
        type(head) is torch.nn.Linear
        and getattr(head, "bias", None) is None
        and head.weight.device.type == "cpu"
        and head.weight.dtype in _TYPES
        and head.out_features >= SMALLEST
    )


class HeadInPieces:
    """Replaces the forward pass of a model's vocabulary projection until it is removed."""

    def __init__(self, model: Any, rows: int) -> None:
        """`rows` is the most samples that come in one step."""
        self._head = model.get_output_embeddings()
        self._whole = self._head.forward
        self._logits = torch.empty(rows, self._head.out_features)
        self._head.forward = self._forward

    def remove(self) -> None:
        """Idempotent."""
        self._head.__dict__.pop("forward", None)

    def _forward(self, hidden: Tensor) -> Tensor:
        """`[…, size]` to `[…, vocabulary]` float32, valid until the next call."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        if flat.shape[0] > self._logits.shape[0]:
            whole: Tensor = self._whole(hidden)
            return whole
        logits = self._logits[: flat.shape[0]]
        in_pieces(flat, self._head.weight, logits)
        return logits.view(*hidden.shape[:-1], -1)
