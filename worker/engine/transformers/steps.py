"""What is in one step of a batch: sequences with one new token first, then prompts.

A step's tensors lie end to end in one row of tokens. What follows from the lengths alone is
decided here, on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Up to this many sequences a step is padded to a power of two, above to a multiple of it: every
#: size is a CUDA graph of its own.
_STRIDE = 64
#: Prompts are read once such a part of the places is free.
_PLACES = 8


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sequence with several new tokens, or one that has no past."""

    #: Its new tokens are at `first` up to but not at `last` of the step.
    first: int
    last: int
    #: Tokens before them.
    past: int

    @property
    def new(self) -> int:
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Step:
    """The sequences of one step, in the order of their tokens."""

    #: Sequences with a past and one new token, padding included.
    ongoing: int
    prompts: Sequence[Prompt]
    #: Position of every new token in its own sequence: `[tokens]`, on the device.
    positions: Tensor
    #: Sequence of every new token: `[tokens]` int64, on the device.
    sequences: Tensor


def split(lengths: Sequence[tuple[int, int]]) -> tuple[int, list[Prompt]]:
    """How many sequences at the front have one new token and a past, and the rest as prompts.

    `lengths` is (past, new) of each.
    """
    ongoing = 0
    while ongoing < len(lengths) and lengths[ongoing][0] > 0 and lengths[ongoing][1] == 1:
        ongoing += 1
    prompts, first = [], ongoing
    for past, new in lengths[ongoing:]:
        prompts.append(Prompt(first, first + new, past))
        first += new
    return ongoing, prompts


def sequence_of_tokens(ongoing: int, prompts: Sequence[Prompt], device: torch.device) -> Tensor:
    """To which sequence each new token belongs."""
    counts = torch.tensor([1] * ongoing + [prompt.new for prompt in prompts])
    return torch.arange(len(counts)).repeat_interleave(counts).to(device, non_blocking=True)


def padded(sequences: int, most: int) -> int:
    """As many as the CUDA graph that takes so many sequences has."""
    if sequences <= _STRIDE:
        return min(most, 1 << (sequences - 1).bit_length())
    return min(most, -(-sequences // _STRIDE) * _STRIDE)


def graph_sizes(most: int) -> list[int]:
    """Every size that `padded` gives, the largest first: later graphs fit in its memory."""
    return sorted({padded(count, most) for count in range(1, most + 1)}, reverse=True)


def worth_reading(running: int, waiting: int, most: int) -> bool:
    """Whether a step should read prompts: it costs every running sequence some time.

    Once nothing runs, or an eighth of the `most` places is free, or all that waits finds one.
    """
    return not running or most - running >= min(max(1, most // _PLACES), waiting)
