"""A line whose `model` is the name of a LoRA adapter, and what else a line may say of them."""

from __future__ import annotations

from typing import Any

import pytest

from db.assignments import parse_assignment
from db.errors import UsageError
from db.modes import Mode
from db.sampling import in_force, merge, normalise
from producer.reading import BadLine, Line
from producer.reading.reader import parse
from producer.submission.checks import LineChecks
from producer.submission.digest import Digest
from producer.submission.order import Order
from producer.submission.slices import slices


def checked(item: dict[str, Any], **order: Any) -> Line | BadLine:
    given = {"adapters": frozenset({"fin"}), **order}
    read = parse(item, source="f", number=1)
    return LineChecks(Order(model="org/m", **given)).check(read)


@pytest.mark.parametrize(
    ("item", "adapter"),
    [
        ({"prompt": "a", "model": "fin"}, "fin"),
        ({"prompt": "a", "model": "fin", "adapter": "fin"}, "fin"),
        ({"messages": [{"role": "user", "content": "a"}], "model": "fin"}, "fin"),
        ({"prompt": "a", "model": "org/m"}, None),
        ({"prompt": "a"}, None),
        ({"prompt": "a", "adapter": "any"}, "any"),
    ],
)
def test_given_a_line_when_checked_then_its_model_may_be_its_adapter(
    item: dict[str, Any], adapter: str | None
) -> None:
    line = checked(item)
    assert isinstance(line, Line)
    assert line.request.get("params", {}).get("adapter") == adapter


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"prompt": "a", "model": "law"}, "give --adapter if that is the name of a LoRA adapter"),
        ({"prompt": "a", "model": "fin", "adapter": "law"}, "model 'fin' and for adapter 'law'"),
        ({"prompt": "a", "model": "fin", "adapter": ""}, "model 'fin' and for adapter ''"),
        ({"prompt": "a", "adapter": "f n"}, "parameter 'adapter': give 1 to 128 letters"),
        ({"prompt": "a", "adapter": 3}, "parameter 'adapter'"),
    ],
)
def test_given_a_line_that_contradicts_when_checked_then_it_is_bad(
    item: dict[str, Any], reason: str
) -> None:
    line = checked(item)
    assert isinstance(line, BadLine)
    assert reason in line.reason


def test_given_lines_of_other_models_when_ignored_then_an_adapter_is_one_all_the_same() -> None:
    for model, adapter in (("fin", "fin"), ("gpt-4", None)):
        line = checked({"prompt": "a", "model": model}, ignore_line_model=True)
        assert isinstance(line, Line)
        assert line.request.get("params", {}).get("adapter") == adapter


@pytest.mark.parametrize("name", ["", "a b", "a/b", "fin=x", "x" * 129, "é"])
def test_given_a_bad_name_when_ordered_then_it_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="give 1 to 128 letters, digits"):
        Order(model="org/m", adapters=frozenset({name}))


def test_given_the_models_own_name_when_ordered_then_it_is_refused() -> None:
    with pytest.raises(UsageError, match="that is the model's own name"):
        Order(model="m", adapters=frozenset({"m"}))


def test_given_an_adapter_chosen_either_way_when_digested_then_it_is_the_same_content() -> None:
    def digest(item: dict[str, Any], *adapters: str) -> str:
        order = Order(model="org/m", adapters=frozenset(adapters))
        found = Digest(order)
        for part in slices([parse(item, source="f", number=1)], LineChecks(order)):
            found.add(part.jobs)
        return found.hexdigest()

    chosen = digest({"prompt": "a", "adapter": "fin"})
    assert digest({"prompt": "a", "model": "fin"}, "fin", "law") == chosen
    assert digest({"prompt": "a"}, "fin") == digest({"prompt": "a"}) != chosen


@pytest.mark.parametrize("mode", Mode)
def test_given_a_batch_with_an_adapter_when_a_line_wants_none_then_it_has_none(mode: Mode) -> None:
    defaults = normalise({"adapter": "fin"}, mode=mode)
    assert in_force(merge(defaults, {}, mode))["adapter"] == "fin"
    own = normalise({"adapter": ""}, defaults, mode)
    assert "adapter" not in in_force(merge(defaults, own, mode))


def test_given_a_number_for_a_name_when_assigned_then_it_is_text() -> None:
    assert parse_assignment("adapter=2024") == ("adapter", "2024")
