"""Low-rank additions behind layers: whose tokens get which, in every shape that a batch has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worker.engine.transformers.adapters.lora import Adapters, Addition
from worker.engine.transformers.adapters.sharing import told
from worker.engine.transformers.projections import Projections


class Model(torch.nn.Module):
    """Two layers, one of which only one adapter adds to, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(8, 6)
        self.second = torch.nn.Linear(6, 5, bias=False)
        self.head = torch.nn.Linear(5, 3)
        self.requires_grad_(requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.second(self.first(hidden))  # type: ignore[no-any-return]

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head


class Adapted:
    """The model with adapters `a` (rank 2, first layer) and `b` (rank 3, both)."""

    def __init__(self) -> None:
        self.model = Model()
        self.plain = Model()
        torch.manual_seed(1)
        self.parts = {
            self.model.first: [
                Addition(0, torch.randn(2, 8), torch.randn(6, 2)),
                Addition(1, torch.randn(3, 8), torch.randn(6, 3)),
            ],
            self.model.second: [Addition(1, torch.randn(3, 6), torch.randn(5, 3))],
        }
        self.adapters = Adapters.attach({"a": "0a", "b": "0b"}, self.parts)

    def expected(self, name: str | None, hidden: Tensor) -> Tensor:
        """With the adapter merged into the weights."""
        number = {"a": 0, "b": 1}.get(name or "", -1)
        for layer, own in (
            (self.plain.first, self.model.first),
            (self.plain.second, self.model.second),
        ):
            added = sum(one.up @ one.down for one in self.parts[own] if one.adapter == number)
            layer.weight.data = own.weight + added
        return self.plain(hidden)  # type: ignore[no-any-return]


@pytest.fixture
def adapted() -> Adapted:
    return Adapted()


NAMES = ["b", None, "a", "b"]


def test_given_a_padded_batch_when_computed_then_each_row_has_its_own(adapted: Adapted) -> None:
    hidden = torch.randn(4, 7, 8)
    with adapted.adapters.rows(NAMES):
        got = adapted.model(hidden)
        # Some models lay all tokens of a batch end to end.
        flat = adapted.model(hidden.reshape(-1, 8))
    for row, name in enumerate(NAMES):
        torch.testing.assert_close(got[row], adapted.expected(name, hidden[row]))
    torch.testing.assert_close(flat, got.reshape(-1, 5))
    torch.testing.assert_close(adapted.model(hidden), adapted.expected(None, hidden))


def test_given_a_packed_batch_when_computed_then_each_sequence_has_its_own(
    adapted: Adapted,
) -> None:
    hidden = torch.randn(1, 12, 8)
    lengths = [3, 1, 4, 2]  # and two tokens of padding
    adapted.adapters.use_packed(zip(NAMES, lengths, strict=True), 12)
    got, flat = adapted.model(hidden), adapted.model(hidden[0])
    adapted.adapters.clear()
    first = 0
    for name, length in zip([*NAMES, None], [*lengths, 2], strict=True):
        part = slice(first, first + length)
        torch.testing.assert_close(got[0, part], adapted.expected(name, hidden[0, part]))
        first += length
    torch.testing.assert_close(flat, got[0])


def test_given_quicker_projections_when_computed_then_the_additions_come_to_theirs(
    adapted: Adapted,
) -> None:
    hidden = torch.randn(1, 2, 8)
    projections = Projections(adapted.model, 4)
    assert "forward" in vars(adapted.model.first)
    adapted.adapters.use_packed([("b", 1), ("a", 1)], 2)
    got = adapted.model(hidden)
    projections.remove()
    torch.testing.assert_close(got, adapted.model(hidden))
    torch.testing.assert_close(got[0, :1], adapted.expected("b", hidden[0, :1]))


def test_given_a_graph_when_masks_change_then_they_lie_where_they_lay(adapted: Adapted) -> None:
    adapted.adapters.reserve(8)
    masks = adapted.adapters._masks
    adapted.adapters.use_packed([], 4, graph=True)
    places = [mask.now.data_ptr() for mask in masks if mask.now is not None]
    assert len(places) == 2, "a mask for each pattern of ranks"
    hidden = torch.randn(1, 4, 8)
    torch.testing.assert_close(adapted.model(hidden), adapted.expected(None, hidden))
    adapted.adapters.use_packed([("a", 1), ("b", 1), (None, 1)], 4, graph=True)
    assert [mask.now.data_ptr() for mask in masks if mask.now is not None] == places
    torch.testing.assert_close(adapted.model(hidden)[0, 1:2], adapted.expected("b", hidden[0, 1:2]))
    adapted.adapters.use_packed([], 4, graph=True)
    torch.testing.assert_close(adapted.model(hidden), adapted.expected(None, hidden))


def test_given_a_step_without_adapters_when_computed_then_nothing_is_added(
    adapted: Adapted,
) -> None:
    adapted.adapters.use_packed([(None, 3)], 3)
    assert all(mask.now is None for mask in adapted.adapters._masks)
    with adapted.adapters.rows([None, None]):
        assert all(mask.now is None for mask in adapted.adapters._masks)


def test_given_an_error_when_computing_then_the_next_batch_begins_without_adapters(
    adapted: Adapted,
) -> None:
    def broken() -> None:
        with adapted.adapters.rows(["a"]):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        broken()
    assert all(mask.now is None for mask in adapted.adapters._masks)


@pytest.mark.parametrize("tokens", [5, 11])
def test_given_tokens_that_are_left_out_when_a_layer_is_called_then_it_is_an_error(
    adapted: Adapted, tokens: int
) -> None:
    adapted.adapters.use_packed([("a", 12)], 12)
    with pytest.raises(ValueError, match="a layer under an adapter gets"):
        adapted.model(torch.randn(tokens, 8))


def test_given_tokens_of_adapters_when_told_then_no_two_begin_alike() -> None:
    firsts = {
        told([token, 7], adapter)[0] for token in (0, 1, 262_143) for adapter in range(-1, 99)
    }
    assert len(firsts) == 3 * 100
    assert told([5, 7], -1) == [5, 7]
    assert all(-(2**31) <= one < 2**31 for one in firsts)
