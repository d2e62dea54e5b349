"""The vocabulary projection in pieces: the numbers of the whole one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from worker.engine.transformers.head import SMALLEST, HeadInPieces, in_pieces, suits

#: More than a piece, and no multiple of one.
VOCABULARY = SMALLEST + 5_000


def a_model(vocabulary: int = VOCABULARY, *, bias: bool = False) -> Any:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, vocabulary, bias=bias).requires_grad_(requires_grad=False)
    return SimpleNamespace(head=head, get_output_embeddings=lambda: head)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_given_a_type_when_projected_in_pieces_then_it_equals_the_whole(dtype: torch.dtype) -> None:
    head = a_model().head.to(dtype)
    hidden = torch.randn(3, 8).to(dtype)
    logits = torch.full((3, VOCABULARY), torch.nan)
    in_pieces(hidden, head.weight, logits)
    torch.testing.assert_close(logits, head(hidden).float())


def test_given_a_model_when_replaced_and_removed_then_its_head_is_as_before() -> None:
    model = a_model()
    hidden = torch.randn(1, 2, 8)
    whole = model.head(hidden)
    pieces = HeadInPieces(model, rows=2)
    found = model.head(hidden)
    torch.testing.assert_close(found, whole)
    again = model.head(torch.randn(1, 1, 8))
    assert again.data_ptr() == found.data_ptr(), "memory is taken once"
    pieces.remove()
    pieces.remove()
    assert model.head(hidden).equal(whole)
    assert model.head(hidden).data_ptr() != found.data_ptr()


def test_given_more_rows_than_expected_when_projected_then_the_whole_is_taken() -> None:
    model = a_model()
    hidden = torch.randn(1, 3, 8)
    whole = model.head(hidden)
    HeadInPieces(model, rows=2)
    assert model.head(hidden).equal(whole)


def test_given_heads_when_asked_then_only_plain_large_ones_suit() -> None:
    assert suits(a_model())
    assert not suits(a_model(SMALLEST - 1))
    assert not suits(a_model(bias=True))
    assert not suits(SimpleNamespace(get_output_embeddings=lambda: None))
