from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.transformers.memory import (
    CPU_CAP,
    ON_CPU,
    ON_GPU,
    KvShape,
    Limits,
    available_ram,
    device_limits,
    is_out_of_memory,
)
from worker.engine.transformers.memory import limits as limits_of

GIB = 1024**3
GPT2 = KvShape(bytes_per_token=12 * 2 * 768 * 4, mask_itemsize=4, masks=1, readable_per_token=1.0)


@given(
    free=st.integers(0, 2**40),
    context=st.none() | st.integers(1, 10**6),
    requests=st.none() | st.integers(1, 1000),
    tokens=st.none() | st.integers(1, 8192),
    fraction=st.none() | st.floats(0.01, 1.0),
)
def test_given_any_memory_when_planned_then_the_pool_stays_inside_its_share(
    free: int,
    context: int | None,
    requests: int | None,
    tokens: int | None,
    fraction: float | None,
) -> None:
    limits = limits_of(ON_CPU, GPT2, free, context, requests, tokens, fraction)
    assert limits.pages is not None
    taken = limits.pages * limits.page_size * GPT2.cost(limits.batch_tokens)
    assert taken <= free * (0.2 if fraction is None else fraction) + 1
    assert fraction is not None or taken <= CPU_CAP
    assert 1 <= limits.requests <= limits.batch_tokens
    if context is not None:
        assert limits.pages <= limits.requests * (context // limits.page_size + 1) * 1000


@given(
    free=st.integers(0, 2**40),
    context=st.none() | st.integers(1, 10**6),
    requests=st.none() | st.integers(1, 1000),
    fraction=st.none() | st.floats(0.01, 1.0),
)
def test_given_any_gpu_when_planned_then_a_sequence_fits_the_pool_and_the_pool_its_share(
    free: int, context: int | None, requests: int | None, fraction: float | None
) -> None:
    shape = KvShape(bytes_per_token=2**17, mask_itemsize=2, masks=0, readable_per_token=1.0)
    limits = limits_of(ON_GPU, shape, free, context, requests, None, fraction)
    assert limits.pages is not None
    taken = limits.pages * limits.page_size * shape.bytes_per_token
    assert taken <= free * (0.8 if fraction is None else fraction) + 1
    assert limits.longest_in_pages <= limits.pages
    if context is not None:
        assert limits.longest_in_pages * limits.page_size < context + limits.page_size


def test_given_plenty_of_memory_when_planned_then_the_pool_is_no_larger_than_can_be_used() -> None:
    limits = limits_of(ON_CPU, GPT2, 1000 * GIB, 100, 4, None, 0.9)
    assert limits.pages == 4 * 7  # 100 tokens lie on 7 pages of 16


def test_given_no_memory_when_planned_then_there_are_no_pages() -> None:
    assert limits_of(ON_CPU, GPT2, 1000, None, None, None, None).pages == 0


def test_given_limits_when_halved_until_the_floor_then_one_request_is_left() -> None:
    limits = Limits(requests=32, batch_tokens=512, pages=1000, page_size=16, memory_fraction=0.2)
    seen = [limits.requests]
    while not limits.at_floor:
        limits = limits.halved()
        seen.append(limits.requests)
    assert seen == [32, 16, 8, 4, 2, 1]
    assert limits.halved().requests == 1
    assert limits.batch_tokens >= limits.requests


def test_given_an_accelerator_when_planned_then_transformers_sizes_the_pool() -> None:
    limits = device_limits(None, None, 0.5)
    assert limits.pages is None
    assert limits.memory_fraction == 0.5


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_given_an_error_when_asked_then_out_of_memory_is_told_from_others(
    error: Exception, expected: bool
) -> None:
    assert is_out_of_memory(error) is expected


def test_given_this_machine_when_asked_then_some_memory_is_free() -> None:
    assert 0 < available_ram() < 2**50
