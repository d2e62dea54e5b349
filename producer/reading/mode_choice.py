"""The mode of a batch: what the user says, else what the first request asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from db.errors import ParameterError
from db.modes import Mode
from db.sampling import normalise
from producer.reading.openai_batch import mode_of

if TYPE_CHECKING:
    from producer.reading.columns import TableRules
    from producer.reading.lines import BadLine, Line
    from producer.reading.requests import RequestParser
    from producer.reading.row_prompt import RowPrompt


class ModeChoice:
    """A batch's mode and its parameters; where no mode is given, the first request decides.

    Decided once: every later reading of the same lines has the same mode.
    """

    def __init__(self, mode: Mode | None, params: Mapping[str, Any]) -> None:
        """Raises ParameterError for parameters of no mode that the batch can have."""
        self._params = params
        self.mode = mode
        self.is_given = mode is not None
        if mode is not None:
            self.defaults = normalise(params, mode=mode)
        else:
            self._check_params()

    def decide(self, item: object, columns: Collection[str]) -> Mode:
        """The mode, decided by `item` unless it was before; `columns` are keys that are data.

        Raises ParameterError where the parameters are not those of the mode.
        """
        if self.mode is None:
            mode = mode_of(item, columns)
            self.defaults = normalise(self._params, mode=mode)
            self.mode = mode
        return self.mode

    def _check_params(self) -> None:
        """Refuses now what no first request can make right."""
        try:
            normalise(self._params, mode=Mode.GENERATE)
        except ParameterError as error:
            try:
                normalise(self._params, mode=Mode.EMBED)
            except ParameterError:
                raise error from None


class DeferredParser:
    """As a RequestParser, made when the first item is there and has decided the mode."""

    def __init__(
        self, choice: ModeChoice, make: Callable[[Mode, Mapping[str, Any]], RequestParser],
        columns: Collection[str],
    ) -> None:  # fmt: skip
        self._choice = choice
        self._make = make
        self._columns = columns
        self._parser: RequestParser | None = None
        #: Tables have no lines of an OpenAI file: these are what their rows would be under.
        self._of_tables = make(Mode.GENERATE, {})

    @property
    def template(self) -> RowPrompt | None:
        return self._of_tables.template

    @property
    def rules(self) -> TableRules:
        return self._of_tables.rules

    def parse(self, item: object, source: str, number: int, unit: str = "line") -> Line | BadLine:
        """As RequestParser.parse. Raises ParameterError, for the first item only."""
        if self._parser is None:
            mode = self._choice.decide(item, self._columns)
            self._parser = self._make(mode, self._choice.defaults)
            # Millions of items may follow, for which this is a call less.
            self.parse = self._parser.parse  # type: ignore[method-assign]
        return self._parser.parse(item, source, number, unit)
