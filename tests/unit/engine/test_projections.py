"""Projections in other orders and in pieces: the numbers of plain ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from worker.engine.transformers.projections import FEW, LARGE, Projections, in_pieces

#: More than a piece, and no multiple of one.
VOCABULARY = LARGE + 5_000


class Model(torch.nn.Module):
    """A layer, with a bias, and a head."""

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 6)
        self.head = torch.nn.Linear(8, vocabulary, bias=False)
        self.requires_grad_(requires_grad=False)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_given_a_type_when_projected_in_pieces_then_it_equals_the_whole(
    dtype: torch.dtype, rows: int
) -> None:
    head = Model().head.to(dtype)
    hidden = torch.randn(rows, 8).to(dtype)
    logits = torch.full((rows, VOCABULARY), torch.nan)
    in_pieces(hidden, head.weight, logits)
    torch.testing.assert_close(logits, head(hidden).float())


@pytest.mark.parametrize("name", ["layer", "head"])
@pytest.mark.parametrize("shape", [(1, 3), (1, FEW), (1, FEW + 1), (2, 2), (), (1, 0)])
def test_given_a_model_when_replaced_and_removed_then_the_numbers_stay(
    name: str, shape: tuple[int, ...]
) -> None:
    model: Any = Model()
    part = getattr(model, name)
    hidden = torch.randn(*shape, 8)
    plain = part(hidden)
    faster = Projections(model, rows=4)
    torch.testing.assert_close(part(hidden), plain)
    faster.remove()
    faster.remove()
    assert part(hidden).equal(plain)


def test_given_a_head_when_used_again_then_memory_is_taken_once() -> None:
    model = Model()
    Projections(model, rows=4)
    places = {model.head(torch.randn(1, rows, 8)).data_ptr() for rows in (1, 4, 2)}
    assert len(places) == 1


def test_given_what_is_not_suited_when_replaced_then_it_is_left_alone() -> None:
    model = Model(LARGE - 1).to(torch.bfloat16)
    Projections(model, rows=4)
    assert "forward" not in model.head.__dict__
    assert "forward" not in model.layer.__dict__
