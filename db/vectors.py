"""A vector as bytes: what it is made of, `f` for float32 or `e` for float16, then its numbers.

Little-endian whatever the machine, two or four bytes a number: an eighth to a fifth of JSON.
"""

from __future__ import annotations

import struct
from array import array
from typing import TypeAlias

from db.modes import Precision

#: float32 numbers, an array of type code `f`.
Vector: TypeAlias = "array[float]"

_CODES: dict[Precision, str] = {"float32": "f", "float16": "e"}


def pack(vector: Vector, precision: Precision) -> bytes:
    """Raises OverflowError for a number above 65,504 in float16."""
    code = _CODES[precision]
    return code.encode() + struct.pack(f"<{len(vector)}{code}", *vector)


def unpack(stored: bytes) -> Vector:
    code = chr(stored[0])
    count = (len(stored) - 1) // struct.calcsize(f"<{code}")
    return array("f", struct.unpack_from(f"<{count}{code}", stored, 1))
