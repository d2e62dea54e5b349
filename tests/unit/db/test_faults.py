"""Faults that are collected, and raised together."""

from __future__ import annotations

import pytest

from db.errors import InputError, OutputError, ParameterError, UsageError
from db.faults import Faults
from db.wording import listed


def _raise(error: Exception) -> None:
    raise error


def test_single_error_is_raised_as_it_is() -> None:
    error = OutputError("a.csv: no space is left")
    faults = Faults()
    faults.of(_raise, error)
    with pytest.raises(OutputError) as raised:
        faults.raise_all()
    assert raised.value is error


def test_errors_of_one_class_become_one_of_it() -> None:
    faults = Faults()
    faults.of(_raise, InputError("a: no such file"))
    faults.of(_raise, InputError("b: no such file"))
    with pytest.raises(InputError) as raised:
        faults.raise_all()
    assert raised.value.faults == ("a: no such file", "b: no such file")
    assert raised.value.message == "a: no such file; also: b: no such file"


def test_errors_of_several_classes_become_a_usage_error() -> None:
    faults = Faults()
    faults.of(_raise, ParameterError("n: too large", "seed: not a number"))
    faults.of(_raise, OutputError("a.csv: no space is left"))
    with pytest.raises(UsageError) as raised:
        faults.raise_all()
    assert type(raised.value) is UsageError
    assert raised.value.exit_code == 2
    assert raised.value.faults == ("n: too large", "seed: not a number", "a.csv: no space is left")


def test_same_fault_is_reported_once() -> None:
    faults = Faults()
    faults.add("model m: no such folder")
    faults.of(_raise, UsageError("model m: no such folder"))
    assert faults.faults == ("model m: no such folder",)


def test_other_exceptions_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        Faults().of(_raise, ZeroDivisionError())


def test_slow_check_is_made_only_beside_a_fault() -> None:
    calls: list[str] = []
    faults = Faults()
    faults.if_any(calls.append, "looked")
    faults.raise_all()
    assert calls == []
    faults.add("bad")
    faults.if_any(_raise, UsageError("worse"))
    with pytest.raises(UsageError) as raised:
        faults.raise_all()
    assert calls == ["looked"]
    assert raised.value.faults == ("bad", "worse")


def test_slow_check_that_depends_on_a_fault_is_left_out() -> None:
    faults = Faults()
    faults.if_any(_raise, UsageError("worse"))
    faults.skip_slow()
    faults.add("bad")
    with pytest.raises(UsageError, match=r"^bad$"):
        faults.raise_all()


def test_value_is_there_once_every_check_has_passed() -> None:
    faults = Faults()
    value = faults.of(int, "7")
    assert faults.checked(value) == 7
    faults.add("bad")
    with pytest.raises(UsageError, match=r"^bad$"):
        faults.checked(value)


@pytest.mark.parametrize(
    ("count", "last"), [(1, "fault 1"), (20, "  fault 20"), (1_021, "  and 1,001 more")]
)
def test_faults_are_listed_up_to_twenty(count: int, last: str) -> None:
    lines = listed([f"fault {number}" for number in range(1, count + 1)])
    assert len(lines) == min(count, 21)
    assert (lines[0], lines[-1]) == ("fault 1", last)
