"""Independent faults of one call, one command or one line, collected and reported together.

    faults = Faults()
    files = faults.of(find, names)
    params = faults.of(normalise, params)
    submit(faults.checked(files), faults.checked(params))  # only where all is well

A check that depends on what another one returned is left out where that one failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from db.errors import PromptmillError, UsageError

T = TypeVar("T")


class Faults:
    """Collects what checks raise; `raise_all` reports every fault at once."""

    #: What counts as a fault; any other exception passes.
    caught: ClassVar[type[PromptmillError]] = PromptmillError
    #: What a fault that is only text becomes.
    kind: ClassVar[type[UsageError]] = UsageError

    def __init__(self) -> None:
        self._errors: list[PromptmillError] = []
        #: None: they are left out.
        self._slow: list[Callable[[], object]] | None = []

    @property
    def errors(self) -> tuple[PromptmillError, ...]:
        """What the checks raised."""
        return tuple(self._errors)

    @property
    def faults(self) -> tuple[str, ...]:
        """Each fault once, in the order in which they were found."""
        return tuple(dict.fromkeys(fault for error in self._errors for fault in error.faults))

    def add(self, fault: PromptmillError | str) -> None:
        """Add a fault, unless it is there already."""
        error = self.kind(fault) if isinstance(fault, str) else fault
        if not set(error.faults) <= set(self.faults):
            self._errors.append(error)

    def of(
        self, check: Callable[..., T], *arguments: Any, where: str = "", **more: Any
    ) -> T | None:
        """What the check returns; None where it raises, and its faults are collected.

        `where` goes before the text of each.
        """
        try:
            return check(*arguments, **more)
        except self.caught as error:
            if where:
                for fault in error.faults:
                    self.add(where + fault)
            else:
                self.add(error)
            return None

    def passes(self, check: Callable[..., object], *arguments: Any, **more: Any) -> bool:
        """Whether the check passes; its faults are collected."""
        try:
            check(*arguments, **more)
        except self.caught as error:
            self.add(error)
            return False
        return True

    def if_any(self, check: Callable[..., object], *arguments: Any) -> None:
        """A slow check, made by `raise_all` and only where there is a fault already.

        It is for what is checked later anyway, when there is none.
        """
        if self._slow is not None:
            self._slow.append(lambda: self.of(check, *arguments))

    def skip_slow(self) -> None:
        """Leave out the checks of `if_any`, from now on too: they depend on what is wrong."""
        self._slow = None

    def raise_all(self) -> None:
        """Raise what was collected, if anything.

        A single error is raised as it is. Several become one UsageError with all their faults, of
        their own class if they share it.
        """
        if not self._errors:
            return
        slow, self._slow = self._slow or [], None
        for check in slow:
            check()
        if len(self._errors) == 1:
            raise self._errors[0]
        raise self._class()(*self.faults)

    def checked(self, value: T | None) -> T:
        """What a check returned, now that every check has passed; else raises as `raise_all`."""
        self.raise_all()
        if value is None:
            raise TypeError("a check that has passed returned nothing")
        return value

    def _class(self) -> type[UsageError]:
        classes = {type(error) for error in self._errors}
        common = classes.pop()
        plain = issubclass(common, UsageError) and common.__init__ is UsageError.__init__
        return common if plain and not classes else UsageError  # type: ignore[return-value]
