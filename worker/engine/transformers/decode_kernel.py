"""One new token of each sequence against that sequence's pages, in one Triton kernel.

Keys and values are read where they lie in the pool, once, whatever the lengths; every shape is
fixed by the number of sequences, so that a CUDA graph can replay it. Needs a GPU and the Triton
that PyTorch's CUDA builds bring along.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Tokens read at once; a page holds a whole number of these.
BLOCK = 64
#: A sequence is read in at most this many parts at once, when there are few of them.
_MOST_PARTS = 16


@triton.jit
def _decode(  # type: ignore[no-untyped-def] # Triton's own types
    query,
    keys,
    values,
    table,
    lengths,
    output,
    weight,
    scale,
    table_width,
    token_stride,
    head_stride,
    SHARED: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    SIZE: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    PAGE: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    PARTS: tl.constexpr,  # noqa: N803
    PRECISION: tl.constexpr,  # noqa: N803
):
    """The SHARED query heads of one key head of one sequence, against one part of its tokens.

    ROWS and COLUMNS are SHARED and SIZE rounded up to what a matrix product takes.
    """
    sequence, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    heads = tl.num_programs(1)
    length = tl.load(lengths + sequence)
    share = tl.cdiv(tl.cdiv(length, PARTS), BLOCK) * BLOCK
    first = part * share
    last = tl.minimum(first + share, length)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    wanted = (rows[:, None] < SHARED) & (columns[None, :] < SIZE)
    row = sequence * heads * SHARED + head * SHARED + rows
    asked = tl.load(query + row[:, None] * SIZE + columns[None, :], mask=wanted, other=0.0)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(first, last, BLOCK):
        page = tl.load(table + sequence * table_width + start // PAGE).to(tl.int64)
        places = start + tl.arange(0, BLOCK)
        tokens = page * PAGE + start % PAGE + tl.arange(0, BLOCK)
        inside = places < last
        known = inside[:, None] & (columns[None, :] < SIZE)
        where = tokens[:, None] * token_stride + head * head_stride + columns[None, :]
        key = tl.load(keys + where, mask=known, other=0.0)
        score = tl.dot(asked, tl.trans(key), input_precision=PRECISION) * scale
        score = tl.where(inside[None, :], score, float("-inf"))
        higher = tl.maximum(best, tl.max(score, 1))
        shrink = tl.exp(best - higher)
        share_of = tl.exp(score - higher[:, None])
        value = tl.load(values + where, mask=known, other=0.0)
        sums = sums * shrink[:, None] + tl.dot(
            share_of.to(value.dtype), value, input_precision=PRECISION
        )
        total = total * shrink + tl.sum(share_of, 1)
        best = higher
    out_row = row * PARTS + part
    result = sums / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(output + out_row[:, None] * SIZE + columns[None, :], result, mask=wanted)
    if PARTS > 1:
        log_weight = tl.where(total > 0, best + tl.log(total), float("-inf"))
        tl.store(weight + out_row, log_weight, mask=rows < SHARED)


def decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    lengths: Tensor,
    scale: float,
    page: int,
) -> Tensor:
    """Attention of one query a sequence: `[sequences, heads, size]`, of the query's type.

    `query` is `[sequences, heads, size]`, contiguous; `keys` and `values` are views of the pool,
    `[tokens, key heads, size]`; `table` is `[sequences, pages]` int32 and says which of the
    pool's pages hold a sequence; `lengths` is `[sequences]` int32. A sequence of length 0 gets
    zeros.
    """
    sequences, heads, size = query.shape
    key_heads = keys.shape[1]
    shared = heads // key_heads
    parts = _parts(sequences * key_heads, query.device)
    output = query.new_empty(
        (sequences, heads, parts, size), dtype=query.dtype if parts == 1 else torch.float32
    )
    weight = torch.empty((sequences, heads, parts), dtype=torch.float32, device=query.device)
    _decode[(sequences, key_heads, parts)](
        query,
        keys,
        values,
        table,
        lengths,
        output,
        weight,
        scale,
        table.stride(0),
        keys.stride(0),
        keys.stride(1),
        SHARED=shared,
        ROWS=max(16, triton.next_power_of_2(shared)),
        SIZE=size,
        COLUMNS=max(16, triton.next_power_of_2(size)),
        PAGE=page,
        BLOCK=BLOCK,
        PARTS=parts,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        num_warps=4,
        num_stages=2 if query.dtype == torch.float32 else 3,
    )
    if parts == 1:
        return output.squeeze(2)
    # A sequence without tokens has no weight anywhere: zeros, not NaN.
    shares = weight.softmax(dim=2).nan_to_num(0.0).unsqueeze(3)
    return (output * shares).sum(dim=2).to(query.dtype)


def _parts(programs: int, device: torch.device) -> int:
    """In how many parts a sequence is read, a power of two: enough to keep the GPU busy."""
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count // programs
    return max(1, min(_MOST_PARTS, 1 << max(0, wanted.bit_length() - 1)))
