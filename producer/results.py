"""Results as Python values: an iterator of typed records, or a table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, get_args

from db.database import Database
from db.errors import UsageError
from db.extras import install_command
from db.modes import Mode
from db.pages import Page
from db.queries import results as queries
from db.queries.results import Only, Order, Selection, Snapshot
from db.records import Batch, Result
from producer.export.answer_fields import Expansion, data_fields, schema_fields
from producer.export.layout import Layout, RecordOptions, layout_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


def ordered_texts(table: pa.Table) -> dict[str, list[str]]:
    """The categories of each column that has them in an order and as text."""
    import pyarrow.types as types

    return {
        field.name: column.chunk(0).dictionary.to_pylist()
        for field, column in zip(table.schema, table.columns, strict=True)
        if types.is_dictionary(field.type)
        and field.type.ordered
        and (types.is_string(field.type.value_type) or types.is_large_string(field.type.value_type))
        and column.num_chunks
    }


logger = logging.getLogger(__name__)


class Results:
    """The finished jobs of a batch, a record a sample; iterate as often as you like.

    Each iteration is a new look: while the batch runs, a later one finds more.
    """

    def __init__(
        self,
        database: Database,
        batch: Batch,
        *,
        order: Order = "input",
        only: Only | None = None,
        with_request: bool = False,
    ) -> None:
        for name, value, known in (("order", order, Order), ("only", only, Only)):
            if value is not None and value not in get_args(known):
                raise UsageError(f"{name} is '{value}': it is one of {', '.join(get_args(known))}")
        self.batch = batch
        self._database = database
        self._selection = Selection(order, only, with_request)
        self._warned: set[str] = set()

    def __iter__(self) -> Iterator[Result]:
        for page in self.pages():
            yield from page

    def pages(self) -> Iterator[Page]:
        """The same, many at once."""
        with self.snapshot() as found:
            yield from found.pages

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """The same, with the batch as it is at that moment."""
        return queries.snapshot(self._database, self.batch, self._selection)

    def expansion(self) -> Expansion:
        """The fields of JSON answers, of the batch's schema or else of a look at all answers."""
        if self.batch.mode is not Mode.GENERATE:
            raise UsageError(
                f"expand is for generated JSON; this batch is of mode {self.batch.mode}"
            )
        return Expansion(schema_fields(self.batch) or data_fields(self.pages()))

    def to_arrow(
        self,
        *,
        provenance: bool = False,
        input_columns: Sequence[str] | None = None,
        names: Mapping[str, str] | None = None,
        expand: bool = False,
    ) -> pa.Table:
        """All of them in memory, a row a sample, the input's columns first.

        `provenance`: with what made each. `input_columns`: which of the input's; None: all of them.
        `names`: other names for columns of ours. `expand`: fields of JSON answers become columns.
        The request's columns come with `with_request`.
        """
        return self._table(RecordOptions(
            provenance=provenance,
            with_prompt=self._selection.with_request,
            input_columns=input_columns,
            names=names or {},
            expand=expand,
        ))[0]  # fmt: skip

    def to_pandas(
        self,
        *,
        provenance: bool = False,
        input_columns: Sequence[str] | None = None,
        names: Mapping[str, str] | None = None,
        expand: bool = False,
    ) -> pd.DataFrame:
        """`to_arrow` as a data frame whose integers stay exact, beside missing ones too.

        Needs pandas (the extra `pandas`).
        """
        try:
            from producer.data_frames import pandas_frame
        except ImportError as error:
            raise UsageError(f"pandas is not installed: {install_command('pandas')}") from error
        return pandas_frame(
            self.to_arrow(
                provenance=provenance, input_columns=input_columns, names=names, expand=expand
            )
        )

    def to_polars(
        self,
        *,
        provenance: bool = False,
        input_columns: Sequence[str] | None = None,
        names: Mapping[str, str] | None = None,
        expand: bool = False,
    ) -> pl.DataFrame:
        """`to_arrow` as a data frame of polars. Needs polars (the extra `polars`).

        Ordered categories of text become an Enum.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise UsageError(f"polars is not installed: {install_command('polars')}") from error
        table = self.to_arrow(
            provenance=provenance, input_columns=input_columns, names=names, expand=expand
        )
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)  # of a table, that is  # noqa: S101
        enums = {name: pl.Enum(values) for name, values in ordered_texts(table).items()}
        return frame.cast(enums) if enums else frame

    def _table(self, options: RecordOptions) -> tuple[pa.Table, Layout]:
        import pyarrow as pa

        from producer.export.arrow_table import record_batches, schema_of

        expansion = self.expansion() if options.expand else None
        with self.snapshot() as found:
            layout = layout_of(found.batch, options, documents=False, expansion=expansion)
            self._warn_once(layout)
            return pa.Table.from_batches(
                record_batches(found.pages, layout), schema=schema_of(layout)
            ), layout

    def _warn_once(self, layout: Layout) -> None:
        """Log which of our columns have another name, as the input has one of that name."""
        for remark in layout.remarks("'names' renames it"):
            if remark not in self._warned:
                self._warned.add(remark)
                logger.warning("%s", remark)
