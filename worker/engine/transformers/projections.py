"""Products with a model's weights on a CPU, for the few rows that generating has.

A step multiplies a few samples with every weight. Two ways of doing it suit that better than
`linear` does; the numbers are the same, but for the order of float32 sums:

- float32: weights times samples instead of samples times weights. The weights, which are by far
  the larger, are then read as they lie and not packed anew every time.
- the vocabulary projection in pieces. It is the widest product (Gemma 3 270M: 262,144 rows of
  640); in pieces each result is still in the processor's cache when it is taken over as float32,
  into memory that is kept from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

#: Tokens of a vocabulary that is projected in pieces, at least.
LARGE = 16_384
#: Tokens of a piece, by whether weights come first.
_PIECE_WEIGHTS_FIRST, _PIECE_ROWS_FIRST = 2_048, 16_384
#: Rows up to which weights come first; beyond them `linear` is as quick.
FEW = 64

Forward = Callable[[Tensor], Tensor]


def weights_first(rows: Tensor, weight: Tensor) -> Tensor:
    """`rows @ weight.T`: `[rows, in]` and `[out, in]` to `[rows, out]`."""
    return torch.mm(weight, rows.T).T.contiguous()


def in_pieces(rows: Tensor, weight: Tensor, logits: Tensor) -> None:
    """Write `rows @ weight.T` into `logits`.

    `rows` is `[rows, in]`, `weight` `[vocabulary, in]`, both of one type; `logits` is
    `[rows, vocabulary]` float32.
    """
    if weight.dtype != torch.float32:
        for part, into in _pieces(weight, logits, _PIECE_ROWS_FIRST):
            into.copy_(torch.mm(rows, part.T))
        return
    piece = torch.empty(_PIECE_WEIGHTS_FIRST, rows.shape[0])
    for part, into in _pieces(weight, logits, _PIECE_WEIGHTS_FIRST):
        into.copy_(torch.mm(part, rows.T, out=piece[: part.shape[0]]).T)


def _pieces(weight: Tensor, logits: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(weight, size), torch.split(logits, size, dim=1), strict=True)


class Projections:
    """Replaces the forward passes of a model's plain projections until they are removed."""

    def __init__(self, model: Any, rows: int) -> None:
        """`rows` is the most samples that come in one step. Off a CPU nothing is replaced."""
        self._replaced: list[torch.nn.Module] = []
        head = model.get_output_embeddings()
        for module in model.modules():
            forward = _replacement(module, rows if module is head else None)
            if forward is not None:
                module.forward = forward
                self._replaced.append(module)

    def remove(self) -> None:
        """Idempotent."""
        for module in self._replaced:
            module.__dict__.pop("forward", None)


def _replacement(module: Any, head_rows: int | None) -> Forward | None:
    """A quicker forward pass of this module, which is the head if `head_rows` is given."""
    if type(module) is not torch.nn.Linear or "forward" in module.__dict__:
        return None
    # What quantises may leave the module as it is and pack the weight alone.
    if type(module.weight) is not torch.nn.Parameter or module.weight.device.type != "cpu":
        return None
    if (
        head_rows is not None
        and module.out_features >= LARGE
        and getattr(module, "bias", None) is None
    ):
        return _head(module, head_rows)
    return _layer(module) if module.weight.dtype == torch.float32 else None


def _layer(module: Any) -> Forward:
    whole: Forward = module.forward

    def forward(hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        if rows.shape[0] > FEW:
            return whole(hidden)
        product = weights_first(rows, module.weight).view(*hidden.shape[:-1], module.out_features)
        return product if module.bias is None else product + module.bias

    return forward


def _head(module: Any, most: int) -> Forward:
    """Its result is float32, and valid until the next call."""
    whole: Forward = module.forward
    kept = torch.empty(most, module.out_features)

    def forward(hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        if rows.shape[0] > most:
            return whole(hidden)
        logits = kept[: rows.shape[0]]
        in_pieces(rows, module.weight, logits)
        return logits.view(*hidden.shape[:-1], module.out_features)

    return forward
