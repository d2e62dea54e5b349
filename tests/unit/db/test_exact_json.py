"""JSON that is read and written without a loss."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.exact_json import BrokenJson, WrittenNumber, dumps, loads, loads_flat

digits = st.from_regex(
    r"-?(?:0|[1-9][0-9]{0,40})(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,4})?", fullmatch=True
)
texts = st.text(st.characters(exclude_categories=["Cs"])).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
json_texts = st.recursive(
    digits | texts | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")
        | st.dictionaries(texts, inner, max_size=4).map(
            lambda items: "{" + ",".join(f"{key}:{value}" for key, value in items.items()) + "}"
        )
    ),
)


@given(json_texts)
def test_any_json_is_written_back_as_it_was_read(text: str) -> None:
    value = loads(text)
    assert json.dumps(json.loads(dumps(value))) == json.dumps(json.loads(text))
    assert loads(dumps(value)) == value
    assert dumps(loads(text.encode())) == dumps(value)


@given(digits)
def test_any_number_keeps_its_digits(text: str) -> None:
    assert dumps(loads(text)).decode() == text
    assert dumps(loads(f'{{"a":[{text},0]}}')).decode() == f'{{"a":[{text},0]}}'


@pytest.mark.parametrize("text", ["1.10", "1e400", "-0", "-0.0", "1E5", "1e16", "1e-5", "5.0"])
def test_number_is_shown_and_computes_as_written(text: str) -> None:
    number = loads(text)
    assert str(number) == f"{number}" == text
    assert number == float(text)
    assert float(number) == float(text)


def test_integers_of_any_size_are_exact() -> None:
    big = 123456789012345678901234567890
    assert loads(f'{{"a": {big}}}') == {"a": big}
    assert dumps({"a": big, "b": [2**64], "c": -(2**63) - 1}) == (
        b'{"a":%d,"b":[%d],"c":%d}' % (big, 2**64, -(2**63) - 1)
    )


def test_written_number_survives_copies() -> None:
    number = loads("1.10")
    for other in (copy.deepcopy([number])[0], pickle.loads(pickle.dumps(number))):
        assert isinstance(other, WrittenNumber)
        assert (str(other), other) == ("1.10", 1.1)
    assert math.isinf(loads("1e400"))


def test_dates_are_not_taken_for_negative_zeros() -> None:
    assert loads('{"day": "2024-01-01", "n": 0}') == {"day": "2024-01-01", "n": 0}
    assert dumps(loads('{"day": ": -0", "n": -0}')) == b'{"day":": -0","n":-0}'


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ('{"a": 1, "a": 2}', "duplicate key", "the key 'a' is given twice"),
        ('{"a": [{"b": 1, "c": 2, "b": 1}]}', "duplicate key", "the key 'b' is given twice"),
        ('{"a": 1', "syntax", "unexpected end of data"),
        ('{"a": NaN}', "syntax", "unexpected character"),
        ('"\\ud800"', "surrogate", "surrogate"),
        ("[" * 300 + "]" * 300, "too large", "nested deeper than 200 levels"),
        ("1" * 5000, "too large", "more than 4,300 digits"),
        (b'"\xff"', "surrogate", "UTF-8"),
    ],
)
def test_broken_json_is_described(text: Any, kind: str, reason: str) -> None:
    with pytest.raises(BrokenJson) as caught:
        loads(text)
    assert caught.value.kind == kind
    assert reason in caught.value.reason


def test_what_json_has_no_form_for_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="set"):
        dumps({"a": {1}})


@pytest.mark.parametrize(
    "lines",
    [
        [b'{"a":1\n', b'"b":2}\n'],
        [b'{"a":"x"},{"b":"y"}\n', b'{"c":"z"}\n'],
        [b'{"a":"x"},["b"\n', b'"c"]\n'],
        [b'{"a":"x"},[{"b":"y"}\n', b'{"c":"z"}]\n'],
        [b'{"a":"x\n', b'{"b":"y"}\n'],
        [b'{"a":{"b":"x"}\n', b'{"c":"y"}}\n'],
        [b'{"a":"x","a":"y"}\n'],
        [b'{"a":"x"}\n', b'{"a":"x","a":"x"}\n'],
        [b'{"a":1.10}\n'],
        [b'{"a":-0}\n'],
        [b'{"a":null}\n'],
        [b'{"a":"say \\"x\\""}\n'],
        [b'{"a":"\\ud800"}\n'],
        [b'{"a":"\xff"}\n'],
        [b'"x"\n'],
        [b"\n"],
        [b'{"a":"x"}\n', b"\n"],
        [b'{"a":"x"}]\n', b'[{"a":"x"}\n'],
        [b'{"a":"x"} {"a":"x"}\n'],
    ],
)
def test_lines_that_may_lose_something_are_left_to_a_closer_look(lines: list[bytes]) -> None:
    assert loads_flat(lines) is None


JSON_PIECES = st.sampled_from(
    [*'{}[],:"', "\\", " ", '"a"', '"b"', '"a":"x"', '{"a":"x"}', "1", "1.10", "null", "\\u0041"]
)


@given(st.lists(st.lists(JSON_PIECES, max_size=7).map("".join), min_size=1, max_size=4))
def test_lines_read_together_are_what_each_is_alone(texts: list[str]) -> None:
    lines = [text.encode() + b"\n" for text in texts]
    together = loads_flat(lines)
    if together is not None:
        assert together == [loads(line) for line in lines]


def test_lines_of_texts_are_read_together() -> None:
    lines = [b'{"a": "x", "b": "\\n\xc3\xa9"}\r\n', b'{"a":""}\n', b"{}"]
    assert loads_flat(lines) == [{"a": "x", "b": "\né"}, {"a": ""}, {}]
