"""What leader and followers say to each other, over a pipe that nobody else has.

Tensors travel as plain bytes: a step's are some kilobytes, and what they index lies on the
device already.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch
from torch import Tensor

from worker.engine.protocol import EngineConfig
from worker.engine.transformers.memory import Limits
from worker.engine.transformers.steps import Prompt

#: What a pass goes through: the whole model, what reads tokens, or the head.
Part = Literal["model", "body", "head"]


@dataclass(frozen=True, slots=True)
class Start:
    """Leader: load your shard."""

    config: EngineConfig
    rank: int
    size: int
    device: str
    backend: str
    #: Where the leader's store listens on this machine.
    port: int
    #: torch's threads.
    threads: int
    log_level: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Leader: run this pass."""

    part: Part
    #: The name of the attention that the model goes through.
    attention: str
    keywords: Mapping[str, Any]
    #: Whether it reads and writes the cache.
    paged: bool
    #: With a table of pages: sequences with one new token, prompts, sequence of each token.
    step: tuple[int, Sequence[Prompt], Any] | None = None


@dataclass(frozen=True, slots=True)
class MakeCache:
    """Leader: make a cache of this size, in place of any other."""

    limits: Limits


@dataclass(frozen=True, slots=True)
class DropCache:
    """Leader: let go of the cache."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Leader: that is all."""


@dataclass(frozen=True, slots=True)
class Here:
    """Follower: I am up."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Follower: my shard is loaded."""

    #: Bytes of my device that are free.
    free: int


@dataclass(frozen=True, slots=True)
class CacheMade:
    """Follower: as told; None: it holds so many sectors."""

    sectors: int
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """Follower: I can't go on, and end."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Packed:
    dtype: torch.dtype
    shape: tuple[int, ...]
    data: bytes


def pack(value: Any) -> Any:
    """Tensors, also those in lists and dictionaries, as bytes."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return _Packed(value.dtype, tuple(value.shape), flat.view(torch.uint8).numpy().tobytes())
    if isinstance(value, Mapping):
        return {name: pack(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [pack(one) for one in value]
    return value


def unpack(value: Any, device: torch.device) -> Any:
    """The reverse, on that device."""
    if isinstance(value, _Packed):
        if not value.data:
            return torch.empty(value.shape, dtype=value.dtype, device=device)
        flat = torch.frombuffer(bytearray(value.data), dtype=torch.uint8).view(value.dtype)
        return flat.reshape(value.shape).to(device)
    if isinstance(value, Mapping):
        return {name: unpack(one, device) for name, one in value.items()}
    if isinstance(value, list):
        return [unpack(one, device) for one in value]
    return value


def send(pipe: Connection, message: object) -> None:
    """Raises OSError once the other side is gone."""
    # Not `Connection.send`: its pickler, with torch's additions, would share memory for tensors.
    pipe.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def receive(pipe: Connection) -> Any:
    """Wait for a message. Raises EOFError or OSError once the other side is gone."""
    return pickle.loads(pipe.recv_bytes())  # noqa: S301 - our own process, over its private pipe
