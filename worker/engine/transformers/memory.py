"""How much fits: the KV pool's size, and telling an out-of-memory error from another.

Sizes are decided by pure functions from the model's shape and the free memory; only
`available_ram` and `available_on` look at the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

#: Share of the free memory that the KV pool takes on a CPU when nobody says.
CPU_FRACTION = 0.2
#: … and its bound in bytes, so that a worker on a big machine stays modest.
CPU_CAP = 1024**3
#: Share of the free device memory on an accelerator: the rest is for activations and logits.
DEVICE_FRACTION = 0.8

#: Tokens per page of the KV pool. Small pages waste little on short prompts and let prompts
#: share short prefixes; our kernel for a GPU reads 64 at once; flash attention's want 256.
CPU_PAGE, TABLE_PAGE, DEVICE_PAGE = 16, 64, 256

#: Requests at once, and tokens per forward pass, when nobody says.
CPU_REQUESTS, DEVICE_REQUESTS = 64, 256
CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS = 512, 8192

#: What an out-of-memory error says where it has no type of its own.
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a back-end admits at once."""

    #: Samples in one forward pass, at most.
    requests: int
    #: Tokens in one forward pass, at most.
    batch_tokens: int
    #: Pages of the KV pool; None: as many as `memory_fraction` of the device's memory holds.
    pages: int | None
    page_size: int
    memory_fraction: float
    #: Pages that one sequence has at most.
    longest_in_pages: int = 0

    @property
    def at_floor(self) -> bool:
        return self.requests == 1

    def halved(self) -> Limits:
        """Half as much, after running out of memory; never below one request."""
        return replace(
            self,
            requests=max(1, self.requests // 2),
            batch_tokens=max(16, self.batch_tokens // 2),
            pages=None if self.pages is None else max(2, self.pages // 2),
            memory_fraction=self.memory_fraction / 2,
        )


@dataclass(frozen=True, slots=True)
class KvShape:
    """What one token costs in the KV pool, and in the tensors that grow with it."""

    #: Bytes of keys and values, all layers together.
    bytes_per_token: int
    #: Bytes of one element of an attention mask.
    mask_itemsize: int
    #: Attention masks of shape [batch tokens, readable tokens]: one per kind of attention.
    masks: int
    #: Readable tokens of the widest kind of attention, per token of the pool: a pool shared by
    #: two kinds may be handed to the kind with few layers alone.
    readable_per_token: float

    def cost(self, batch_tokens: int) -> float:
        """Bytes per token of the pool, its share of the masks included."""
        mask = self.masks * self.mask_itemsize * batch_tokens * self.readable_per_token
        return self.bytes_per_token + mask


@dataclass(frozen=True, slots=True)
class Habits:
    """What a kind of device admits when nobody says."""

    requests: int
    batch_tokens: int
    page: int
    #: Share of the free memory that the pool takes …
    fraction: float
    #: … and its bound in bytes, unless somebody says the share.
    cap: float = math.inf


#: On a CPU, and on a GPU with our own attention.
ON_CPU = Habits(CPU_REQUESTS, CPU_BATCH_TOKENS, CPU_PAGE, CPU_FRACTION, CPU_CAP)
ON_GPU = Habits(DEVICE_REQUESTS, DEVICE_BATCH_TOKENS, TABLE_PAGE, DEVICE_FRACTION)


def limits(
    habits: Habits,
    shape: KvShape,
    free_bytes: int,
    context_length: int | None,
    max_requests: int | None,
    batch_tokens: int | None,
    fraction: float | None,
) -> Limits:
    """What to admit where `free_bytes` of memory are left after the model is loaded.

    The pool never holds more than every request at full context can use. `pages` is 0 where
    not even one page fits.
    """
    requests = max_requests or habits.requests
    tokens = batch_tokens or habits.batch_tokens
    share = habits.fraction if fraction is None else fraction
    budget = free_bytes * share
    if fraction is None:
        budget = min(budget, habits.cap)
    pages = int(budget / shape.cost(tokens) / habits.page)
    longest = pages
    if context_length is not None:
        longest = min(pages, -(-context_length // habits.page))
        pages = min(pages, requests * longest)
    return Limits(min(requests, tokens), tokens, pages, habits.page, share, longest)


def device_limits(
    max_requests: int | None, batch_tokens: int | None, fraction: float | None
) -> Limits:
    """What to admit on an accelerator; transformers sizes the pool from its free memory."""
    requests = max_requests or DEVICE_REQUESTS
    tokens = batch_tokens or DEVICE_BATCH_TOKENS
    share = DEVICE_FRACTION if fraction is None else fraction
    return Limits(min(requests, tokens), tokens, None, DEVICE_PAGE, share)


def available_ram() -> int:
    """Bytes that this process may still take: the machine's, or its control group's if less."""
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free
    return max(0, min(free, limit - used))


def available_on(device: torch.device) -> int:
    """Bytes of a GPU's memory that this process may still take."""
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + kept)


#: What PyTorch says once nothing can be computed on a device any more.
_LOST_DEVICE = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "device-side assert")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on the host or on the device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def is_of_a_request(error: BaseException) -> bool:
    """Whether the error may be of what was computed: no memory ran out, and no device is lost."""
    if is_out_of_memory(error) or type(error).__name__ == "AcceleratorError":
        return False
    return not any(sign in str(error) for sign in _LOST_DEVICE)
