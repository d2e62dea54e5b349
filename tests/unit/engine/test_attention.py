from __future__ import annotations

import pytest
import torch
from transformers.generation.continuous_batching.utils import build_attention_mask

from worker.engine.transformers.attention import visible


@pytest.mark.parametrize("window", [None, 3, 8])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (4, 4), (3, 10), (9, 9), (2, 3)])
def test_given_a_sequence_when_masked_then_it_equals_transformers_own_mask(
    queries: int, keys: int, window: int | None
) -> None:
    mask = torch.zeros(1, 1, queries, keys)
    build_attention_mask(mask, [0, queries], [0, keys], window or 1)
    assert visible(queries, keys, window).equal(mask[0, 0] == 0)
