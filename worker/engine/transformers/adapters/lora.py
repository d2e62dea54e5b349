"""LoRA: low-rank additions to a model's layers, another one for every row of a batch.

A layer that computes `y = W x` gets `y += B (A x) · scale` (Hu et al., 2021, arXiv:2106.09685).
The A's of all adapters lie one below the other in one matrix, the B's side by side; in between, a
mask keeps of each token the part of its own adapter. So a mixed batch takes two small products a
layer, whoever is in it, without sorting or gathering, and the same kernels always: a CUDA graph
reads the mask from where it lay at its capture.

The additions are hooks behind the layers: whatever else replaces a layer's forward pass, as
`projections` does, stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

#: The number of no adapter.
_NONE = -1


@dataclass(frozen=True, slots=True)
class Addition:
    """What one adapter adds to one layer."""

    #: Which adapter: its place among all.
    adapter: int
    #: A: `[rank, in]`.
    down: Tensor
    #: B, scaled: `[out, rank]`.
    up: Tensor


@dataclass(slots=True, eq=False)
class _Mask:
    """Which part of the low-rank products each token keeps, of layers whose parts lie alike."""

    #: The adapter of each part: `[ranks]`.
    owners: Tensor
    dtype: torch.dtype
    #: `[1, tokens, ranks]` of a packed batch, `[rows, 1, ranks]` of a padded one; None: nobody
    #: uses an adapter now.
    now: Tensor | None = None
    #: Where a CUDA graph reads it: `[1, tokens at most, ranks]`.
    fixed: Tensor | None = None

    def set(self, numbers: Tensor) -> None:
        """`numbers`: of each token, or row, its adapter: `[1, tokens]` or `[rows, 1]`."""
        self.now = (numbers.unsqueeze(-1) == self.owners).to(self.dtype)

    def set_fixed(self, numbers: Tensor) -> None:
        """The same, of a packed batch, where a graph finds it."""
        if self.fixed is None:
            raise RuntimeError("no room was reserved for the masks of graphs")
        self.now = self.fixed[:, : numbers.shape[1]]
        self.now.copy_(numbers.unsqueeze(-1) == self.owners)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """The additions of one layer, as a forward hook."""

    down: Tensor
    up: Tensor
    mask: _Mask

    def __call__(self, _module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        mask = self.mask.now
        if mask is None:
            return None
        low = linear(inputs[0].to(self.down.dtype), self.down)
        low = low * _fitting(mask, low)
        return output + linear(low, self.up).to(output.dtype)


def _fitting(mask: Tensor, low: Tensor) -> Tensor:
    """The mask in the shape of `[rows, tokens, ranks]`, or of all tokens in one: `[…, ranks]`."""
    rows, tokens, ranks = mask.shape
    if low.dim() == 3 and low.shape[0] == rows and tokens in (1, low.shape[1]):
        return mask
    if low.dim() == 2 and tokens > 1 and low.shape[0] == rows * tokens:
        return mask.reshape(-1, ranks)
    if low.dim() == 2 and tokens == 1 and low.shape[0] % rows == 0:
        return mask.expand(rows, low.shape[0] // rows, ranks).reshape(-1, ranks)
    raise ValueError(
        f"a layer under an adapter gets {tuple(low.shape[:-1])} tokens of a batch of "
        f"{(rows, tokens)}"
    )


@dataclass(slots=True, eq=False)
class Adapters:
    """The adapters beside a model; which of them a pass uses is set around it.

    Whoever sets it has the model's turn. Without any adapters it does nothing and costs nothing.
    """

    #: Name -> digest, in the order of their numbers.
    digests: Mapping[str, str] = field(default_factory=dict)
    _masks: Sequence[_Mask] = ()
    _numbers: Mapping[str | None, int] = field(init=False)

    def __post_init__(self) -> None:
        self._numbers = {None: _NONE, **{name: at for at, name in enumerate(self.digests)}}

    @classmethod
    def attach(
        cls, digests: Mapping[str, str], additions: Mapping[Any, Sequence[Addition]]
    ) -> Adapters:
        """Hook the additions of every layer (a module) behind it."""
        masks: dict[tuple[tuple[int, int], ...], _Mask] = {}
        for module, parts in additions.items():
            down = torch.cat([part.down for part in parts])
            up = torch.cat([part.up for part in parts], dim=1)
            places = tuple((part.adapter, part.down.shape[0]) for part in parts)
            if places not in masks:
                owners = [number for number, rank in places for _ in range(rank)]
                masks[places] = _Mask(torch.tensor(owners, device=down.device), down.dtype)
            module.register_forward_hook(_Layer(down, up, masks[places]))
        return cls(digests, list(masks.values()))

    def number(self, name: str | None) -> int:
        """What tells its adapter from the others: 0, 1, …; -1 for none."""
        return self._numbers[name]

    def reserve(self, tokens: int) -> None:
        """Room for the masks of CUDA graphs of up to so many tokens."""
        for mask in self._masks:
            shape = (1, tokens, len(mask.owners))
            mask.fixed = torch.zeros(shape, dtype=mask.dtype, device=mask.owners.device)

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """What is computed in this block is a padded batch, whose rows use these."""
        try:
            numbers = [self._numbers[name] for name in names]
            if self._used(numbers):
                on_device = torch.tensor(numbers, device=self._device).unsqueeze(1)
                for mask in self._masks:
                    mask.set(on_device)
            yield
        finally:
            self.clear()

    def use_packed(
        self, sequences: Iterable[tuple[str | None, int]], tokens: int, *, graph: bool = False
    ) -> None:
        """Until `clear`, a packed batch of so many tokens: of each sequence its adapter and length.

        What is left at the end is padding. `graph`: a CUDA graph reads the masks, so that it needs
        them though nobody uses an adapter.
        """
        if not self._masks:
            return
        numbers = [_NONE] * tokens
        place = 0
        for name, length in sequences:
            numbers[place : place + length] = [self._numbers[name]] * length
            place += length
        if graph or self._used(numbers):
            on_device = torch.tensor([numbers], device=self._device)
            for mask in self._masks:
                (mask.set_fixed if graph else mask.set)(on_device)

    def clear(self) -> None:
        """Nobody uses an adapter any more."""
        for mask in self._masks:
            mask.now = None

    def _used(self, numbers: Sequence[int]) -> bool:
        return bool(self._masks) and max(numbers, default=_NONE) > _NONE

    @property
    def _device(self) -> torch.device:
        return self._masks[0].owners.device
