"""What becomes of a table's columns, known before its first row is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from db.errors import InputError
from db.foreign_names import is_known_elsewhere
from producer.reading.data_keys import is_data, or_data
from producer.reading.keys import Names, elsewhere, nearest
from producer.reading.row_prompt import RowPrompt
from producer.reading.splitting import ID
from producer.reading.template import no_such_column
from producer.reading.texts import shown


def check_columns(template: RowPrompt, columns: Sequence[str], name: str) -> None:
    """Raises InputError with every column that the template names and the file `name` lacks."""
    missing = [column for column in template.columns if column not in columns]
    if missing:
        raise InputError(*(f"{name}: {no_such_column(column, columns)}" for column in missing))


@dataclass(frozen=True, slots=True)
class TableRules:
    """What decides that, for every table of a batch."""

    template: RowPrompt | None
    names: Names
    #: Columns that are data, whatever they are called.
    declared: Collection[str] = ()

    def split(self, columns: Sequence[str], name: str) -> TableColumns:
        """The columns of the table `name`. Raises InputError where they make no requests."""
        twice = [column for column, count in Counter(columns).items() if count > 1]
        if twice:
            raise InputError(
                *(
                    f"{name}: the column {shown(column)} is there twice: rename one"
                    for column in twice
                )
            )
        if self.template is not None:
            return self._of_template(self.template, columns, name)
        data = [column for column in columns if is_data(column, self.names, self.declared)]
        request = [column for column in columns if column not in data]
        self._check_request(request, columns, name)
        return TableColumns(tuple(request), tuple(data))

    def _of_template(self, template: RowPrompt, columns: Sequence[str], name: str) -> TableColumns:
        check_columns(template, columns, name)
        own = set() if ID in self.declared else {ID}
        return TableColumns(
            tuple(column for column in columns if column in {*template.columns, *own}),
            tuple(column for column in columns if column not in own),
        )

    def _check_request(self, request: Sequence[str], columns: Sequence[str], name: str) -> None:
        how = 'or say how a row becomes a prompt, as in --template "Translate: {text}"'
        if not set(request) & set(self.names.needed):
            there = ", ".join(shown(column) for column in columns[:20])
            if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
                how = "or separate the columns by commas (or name the file .tsv for tabs)"
            raise InputError(f"{name}: no column 'prompt' among {there}: rename one, {how}")
        faults = []
        for column in request:
            # Of another system's parameter, each row's value decides.
            if column not in self.names.known and not is_known_elsewhere(column):
                reason = (
                    f"the column {shown(column)} is no part of a request"
                    f"{elsewhere(column, self.names)}: {nearest(column, self.names.known)}"
                )
                faults.append(f"{name}: {or_data(reason, column)}")
        if faults:
            raise InputError(*faults)


@dataclass(frozen=True, slots=True)
class TableColumns:
    """A table's columns, in its order."""

    #: What requests are made of.
    request: tuple[str, ...]
    #: What comes back with the results.
    data: tuple[str, ...]
