"""The process group in which ranks meet during a pass."""

from __future__ import annotations

import contextlib
import os
import socket
from datetime import timedelta

import torch
from torch import distributed
from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed import distributed_c10d

from db.errors import ModelLoadError

#: For everyone to come together.
_JOIN = timedelta(seconds=120)
#: For one collective. Nobody waits in one while the leader stands idle.
_COLLECTIVE = timedelta(minutes=10)

_HERE = "127.0.0.1"
_LOOPBACK = ("lo", "lo0")


def backend_of(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def check_free() -> None:
    """Raise ModelLoadError if this process has a group, of which there can be only one."""
    if distributed.is_initialized():
        raise ModelLoadError(
            "tensor_parallel: this process is part of a torch.distributed group already, and "
            "another model can't share it: start a worker of its own"
        )


def open_store(size: int) -> TCPStore:
    """The leader's store, at a free port of the loopback interface."""
    return TCPStore(_HERE, 0, size, is_master=True, timeout=_JOIN, wait_for_workers=False)


def reach_store(port: int, size: int) -> TCPStore:
    """The same, for a follower."""
    return TCPStore(_HERE, port, size, is_master=False, timeout=_JOIN)


def join(store: Store, backend: str, rank: int, size: int, device: torch.device) -> None:
    """Come together with the other ranks. Raises what torch raises."""
    loopback = [name for _, name in socket.if_nameindex() if name in _LOOPBACK]
    if loopback:  # its ports are nobody else's business
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        backend=backend,
        store=store,
        rank=rank,
        world_size=size,
        timeout=_COLLECTIVE,
        device_id=device if backend == "nccl" else None,
    )


def leave() -> None:
    """Idempotent."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def abort() -> None:
    """Have whoever waits on a GPU for a rank that is gone wait no longer.

    gloo sees by itself that a connection has ended.
    """
    with contextlib.suppress(Exception):
        if distributed.is_initialized() and distributed.get_backend() == "nccl":
            distributed_c10d._abort_process_group()  # noqa: SLF001
