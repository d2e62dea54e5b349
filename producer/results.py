"""Results as Python values: an iterator of typed records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict, get_args

from db.database import Database
from db.errors import UsageError
from db.pages import Page
from db.queries.results import Order, pages, stream
from db.records import Batch, Result

if TYPE_CHECKING:
    import pandas as pd


class _Wanted(TypedDict):
    order: Order
    failed_only: bool
    with_request: bool


class Results:
    """The finished jobs of a batch, a record a sample; iterate as often as you like.

    Each iteration is a new look: while the batch runs, a later one finds more.
    """

    def __init__(
        self,
        database: Database,
        batch: Batch,
        *,
        order: Order,
        failed_only: bool,
        with_request: bool,
    ) -> None:
        if order not in get_args(Order):
            raise UsageError(f"order is '{order}': it is one of {', '.join(get_args(Order))}")
        self.batch = batch
        self._database = database
        self._wanted: _Wanted = {
            "order": order, "failed_only": failed_only, "with_request": with_request
        }  # fmt: skip

    def __iter__(self) -> Iterator[Result]:
        return stream(self._database, self.batch, **self._wanted)

    def pages(self) -> Iterator[Page]:
        """The same, many at once."""
        return pages(self._database, self.batch, **self._wanted)

    def to_pandas(self) -> pd.DataFrame:
        """All of them in memory, a row a sample. Needs pandas (`promptmill[pandas]`)."""
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError("pandas is not installed: pip install 'promptmill[pandas]'") from error
        found = list(self)
        frame = pd.DataFrame([result._asdict() for result in found], columns=Result._fields)
        # Beside a missing one pandas would take them for floats, which lose their last digits.
        frame["seed"] = pd.array([result.seed for result in found], dtype="Int64")
        return frame
