"""Numbers of parameters, whichever way a format or a library writes them. Pure."""

from __future__ import annotations

from decimal import Decimal
from numbers import Integral, Real
from typing import Annotated, Any

from pydantic import BeforeValidator

#: The largest count (tokens, samples, …): what every engine and database can hold.
LARGEST_COUNT = 2**31 - 1

#: Digits of an integer, at most: Python reads and writes no more at once.
_MAX_DIGITS = 4300


def whole(value: Any) -> Any:
    """The value as an int where it is a number without a fraction, else as it is.

    Data frames write 30 as 30.0 in a column with gaps, SQL exports give Decimal("30"), and numpy
    has integers of its own. Text is not a number, and True is not 1.
    """
    if isinstance(value, int | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Decimal):
        is_whole = value.is_finite() and value.adjusted() < _MAX_DIGITS and value == int(value)
        return int(value) if is_whole else value
    number = real(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value


def real(value: Any) -> Any:
    """The value as a float where it is a number of another type, else as it is."""
    if isinstance(value, float | bool | str):
        return value
    try:
        # By its digits: a float32 of 0.7 is 0.7, and not 0.699999988079071.
        return float(str(value)) if isinstance(value, Decimal | Real) else value
    except (ValueError, OverflowError):
        return value


#: Fields of pydantic models that are strict otherwise.
Whole = Annotated[int, BeforeValidator(whole)]
Number = Annotated[float, BeforeValidator(real)]
