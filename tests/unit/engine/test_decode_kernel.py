"""The GPU's kernel against its plain counterpart, on a machine that has a GPU."""

from __future__ import annotations

import pytest
import torch

from tests.support import decode_reference

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

#: (heads, key heads, head size)
SHAPES = [(12, 12, 64), (4, 1, 256), (32, 8, 128), (9, 3, 80), (2, 2, 16)]

#: Ragged, with padding, with single tokens and whole blocks; and few but long.
LENGTHS = [[0, 1, 63, 64, 65, 128, 300, 17, 0], [3000, 1], [5]]

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("lengths", LENGTHS, ids=["ragged", "long", "one"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_given_pages_in_any_order_when_decoded_then_it_equals_plain_attention(
    shape: tuple[int, int, int], lengths: list[int], dtype: torch.dtype
) -> None:
    from worker.engine.transformers.decode_kernel import decode

    heads, key_heads, size = shape
    page = 64
    torch.manual_seed(1)
    needed = [-(-length // page) for length in lengths]
    # Every other row of the pool is another layer's, as in the real one.
    pool = torch.randn(2 * (sum(needed) + 3) * page, key_heads, size, device="cuda", dtype=dtype)
    keys, values = pool, pool[page:]
    free = iter((torch.randperm(sum(needed)) * 2).tolist())
    table = torch.full((len(lengths), max(needed) + 2), -1, dtype=torch.int32, device="cuda")
    for place, count in enumerate(needed):
        for at in range(count):
            table[place, at] = next(free)
    query = torch.randn(len(lengths), heads, size, device="cuda", dtype=dtype)
    known = torch.tensor(lengths, dtype=torch.int32, device="cuda")
    got = decode(query, keys, values, table, known, size**-0.5, page)
    expected = decode_reference.decode(
        query.double(), keys.double(), values.double(), table, known, size**-0.5, page
    )
    assert got.dtype == dtype
    assert (got.double() - expected).norm() <= TOLERANCE[dtype] * expected.norm()
    assert got[known == 0].abs().sum() == 0
