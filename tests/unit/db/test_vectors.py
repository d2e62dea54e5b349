"""Vectors as bytes."""

from __future__ import annotations

from array import array

import pytest

from db.vectors import pack, unpack


def test_given_numbers_when_packed_as_float32_then_they_come_back_as_they_were() -> None:
    vector = array("f", [0.1, -2.5, 1e-30, 3e38, 0.0])
    stored = pack(vector, "float32")
    assert len(stored) == 1 + 4 * len(vector)
    assert unpack(stored) == vector


def test_given_numbers_when_packed_as_float16_then_they_take_half_and_are_rounded() -> None:
    vector = array("f", [0.1, -2.5, 65_504.0])
    stored = pack(vector, "float16")
    assert len(stored) == 1 + 2 * len(vector)
    assert list(unpack(stored)) == pytest.approx(list(vector), rel=2**-11)
    with pytest.raises(OverflowError):
        pack(array("f", [70_000.0]), "float16")


def test_given_known_bytes_when_unpacked_then_they_are_little_endian_on_any_machine() -> None:
    assert list(unpack(b"f\x00\x00\x80\x3f\x00\x00\x00\xc0")) == [1.0, -2.0]
    assert list(unpack(b"e\x00\x3c")) == [1.0]
    assert pack(array("f", [1.0]), "float32") == b"f\x00\x00\x80\x3f"
