"""One number, one verdict, whichever type it comes in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from db.errors import ParameterError
from db.exact_json import loads
from db.modes import Mode
from db.numbers import real, whole
from db.sampling import SamplingParams, normalise

FIVES: list[Any] = [5, 5.0, Decimal(5), Decimal("5.00"), np.int64(5), np.float32(5), loads("5e0")]
#: Parameters that are whole numbers, or lists of them.
WHOLE = [
    *("max_tokens", "max_length", "top_k", "n", "seed", "logprobs", "retry_max_tokens"),
    *("retry_invalid", "stop_token_ids"),
]


@pytest.mark.parametrize("value", FIVES, ids=repr)
def test_whole_number_of_any_type_is_an_int(value: Any) -> None:
    assert type(whole(value)) is int
    assert normalise({"max_tokens": value, "stop_token_ids": [value]}) == {
        "max_tokens": 5,
        "stop_token_ids": [5],
    }
    assert normalise({"logprobs": value}, mode=Mode.SCORE) == {"logprobs": 5}


@pytest.mark.parametrize("value", ["5", True, 5.5, Decimal("5.5"), float("nan"), Decimal("NaN")])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match="parameter 'max_tokens'"):
        normalise({"max_tokens": value})


@pytest.mark.parametrize(
    "value", [0.7, Decimal("0.70"), np.float32(0.7), np.float64(0.7), loads("0.70")], ids=repr
)
def test_real_number_of_any_type_is_a_float(value: Any) -> None:
    assert normalise({"temperature": value}) == {"temperature": 0.7}
    assert real("0.7") == "0.7"


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("text", ["1" + "0" * 30, "-1" + "0" * 30, "9" * 5000, "1e400"])
def test_enormous_number_is_out_of_range_by_name(name: str, text: str) -> None:
    value = int(text[:4000]) if text.lstrip("-").isdigit() else loads(text)
    given: Any = [value] if name == "stop_token_ids" else value
    with pytest.raises(ParameterError, match=f"parameter '{name}': "):
        normalise({name: given})


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "repetition_penalty"])
@pytest.mark.parametrize("value", [10**400, -(10**400), loads("1e400"), Decimal("1e400")])
def test_enormous_real_number_is_out_of_range_by_name(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=f"parameter '{name}': "):
        normalise({name: value})


def test_every_whole_number_parameter_is_listed() -> None:
    fields = SamplingParams.model_json_schema()["properties"]
    ints = {name for name, field in fields.items() if "'integer'" in str(field)}
    assert ints == {*WHOLE, "top_logprobs"}


def test_all_faulty_parameters_are_reported_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        normalise({"n": 0, "temprature": 1, "top_p": 3, "max_tokens": -1, "seed": "x"})
    assert len(caught.value.faults) == 5
    assert "did you mean 'temperature'?; also: parameter " in caught.value.message
    assert caught.value.message.endswith("; and 2 more")


def test_digits_of_nested_numbers_are_kept() -> None:
    kwargs = loads('{"limit": 1.10, "big": 123456789012345678901234567890}')
    assert str(normalise({"chat_template_kwargs": kwargs})["chat_template_kwargs"]) == str(kwargs)
