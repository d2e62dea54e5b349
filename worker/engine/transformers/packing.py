"""What a step's sequences attend to, worked out once for all layers of one kind.

A batch is one row in which the new tokens of many sequences lie end to end. Sequences in the
middle of their text have one new token each: they are taken together, a few of like length in one
padded group. Prompts are taken one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

#: Sequences of a group: more of them are padded more, fewer make more calls.
_GROUP = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sequence with several new tokens, or one that has no past."""

    #: Its new tokens are at `first` up to but not at `last` of the batch.
    first: int
    last: int
    #: Where the cache holds the tokens before them; None: there are none.
    past: Tensor | None


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences with a past and one new token each."""

    #: Where their new tokens are in the batch: `[sequences]`.
    places: Tensor
    #: Where the cache holds all of their tokens, padded at the end: `[sequences × longest]`.
    tokens: Tensor
    #: 0 where there is a token and -inf where there is none: `[sequences, 1, 1, longest]`.
    #: None where all are of one length.
    mask: Tensor | None

    @property
    def sequences(self) -> int:
        return self.places.shape[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """All sequences of a step."""

    prompts: Sequence[Prompt]
    groups: Sequence[Group]


def plan(
    queries: Sequence[int], keys: Sequence[int], read: Tensor, write: Tensor, dtype: torch.dtype
) -> Plan:
    """Sort a step's sequences into prompts and groups.

    `queries` and `keys` are cumulated lengths. `read` says where the tokens of all sequences are
    in the cache, the new ones included, whose places there count for nothing; it is empty where no
    sequence has a past. `write` says where the new tokens go. `dtype` is the masks'.
    """
    prompts: list[Prompt] = []
    ongoing: list[tuple[int, Tensor]] = []
    for (first, last), (start, end) in zip(pairwise(queries), pairwise(keys), strict=True):
        new = last - first
        past = read[start : end - new] if end - start > new else None
        if new == 1 and past is not None:
            ongoing.append((first, torch.cat((past, write[first:last]))))
        else:
            prompts.append(Prompt(first, last, past))
    ongoing.sort(key=lambda one: len(one[1]))
    groups = [
        _group(ongoing[place : place + _GROUP], dtype) for place in range(0, len(ongoing), _GROUP)
    ]
    return Plan(prompts, groups)


def _group(members: Sequence[tuple[int, Tensor]], dtype: torch.dtype) -> Group:
    tokens = [indices for _, indices in members]
    lengths = torch.tensor([len(indices) for indices in tokens])
    return Group(
        places=torch.tensor([place for place, _ in members]),
        tokens=pad_sequence(tokens, batch_first=True).flatten(),
        mask=_mask(lengths, dtype),
    )


def _mask(lengths: Tensor, dtype: torch.dtype) -> Tensor | None:
    longest = int(lengths.max())
    if int(lengths.min()) == longest:
        return None
    padding = torch.arange(longest) >= lengths.unsqueeze(1)
    mask = torch.zeros(padding.shape, dtype=dtype).masked_fill_(padding, -torch.inf)
    return mask[:, None, None, :]
