"""Commands that report everything that is wrong with a call at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from db.errors import UsageError
from db.faults import Faults

#: Where a context keeps the faults of its options.
_KEY = "promptmill.faults"


class BadOption(UsageError):
    """What click says of an option or an argument."""

    def __init__(self, original: click.UsageError) -> None:
        super().__init__(original.format_message())
        self.original = original


class Command(click.Command):
    """Reports the bad values of all options together, where click stops at the first."""

    #: Whether its function checks more, and reports bad values together with what it finds.
    checks_more = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as unknown:
            raise self._explained(ctx, args, unknown) from None
        except click.BadParameter:
            if ctx.resilient_parsing:
                raise
            errors = self._errors(ctx, args)
            if not errors:
                raise
        faults = Faults()
        for error in errors:
            faults.add(BadOption(error))
        if not self.checks_more or any(isinstance(e, click.MissingParameter) for e in errors):
            if len(errors) == 1:
                raise errors[0]
            faults.raise_all()
        ctx.meta[_KEY] = faults
        return self._parsed_with_defaults(ctx, args, [error.param for error in errors])

    def _explained(
        self, ctx: click.Context, args: list[str], error: click.NoSuchOption
    ) -> click.NoSuchOption:
        """With what to write instead, where the option is a parameter."""
        from producer.commands.parameter_options import explanation

        parameters = self.get_params(ctx)
        if not any("--param" in parameter.opts for parameter in parameters):
            return error
        options = {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
        message = explanation(error.option_name, args, options)
        return error if message is None else click.NoSuchOption(error.option_name, message, ctx=ctx)

    def _errors(self, ctx: click.Context, args: list[str]) -> list[click.BadParameter]:
        """What is wrong with each option, and with each value of one that may be repeated."""
        scratch = click.Context(self, parent=ctx.parent, info_name=ctx.info_name)
        options, _, _ = self.make_parser(scratch).parse_args(list(args))
        errors = []
        for parameter in self.get_params(scratch):
            for part in _parts(parameter, options):
                try:
                    parameter.handle_parse_result(scratch, part, [])
                except click.BadParameter as error:
                    errors.append(error)
        return errors

    def _parsed_with_defaults(
        self, ctx: click.Context, args: list[str], bad: Iterable[click.Parameter | None]
    ) -> list[str]:
        """Parse; a bad option gets its default, so that the rest can be checked."""
        defaults = click.Context(self, parent=ctx.parent, resilient_parsing=True)
        super().parse_args(defaults, [])
        ctx.params.clear()
        ctx.resilient_parsing = True
        try:
            rest = super().parse_args(ctx, list(args))
        finally:
            ctx.resilient_parsing = False
        for name in [str(parameter.name) for parameter in bad if parameter is not None]:
            ctx.params[name] = defaults.params[name]
        return rest


class CheckingCommand(Command):
    """Its function looks for further faults: it begins with `option_faults`, and ends its checks
    with their `raise_all`, before it does anything.
    """

    checks_more = True


def bad_options() -> frozenset[str]:
    """Parameters of the current command whose values are bad; they have their defaults instead."""
    faults = option_faults()
    errors = (error for error in faults.errors if isinstance(error, BadOption))
    parameters = (getattr(error.original, "param", None) for error in errors)
    return frozenset(str(parameter.name) for parameter in parameters if parameter is not None)


def option_faults() -> Faults:
    """What is wrong with the options of the command that runs."""
    faults = click.get_current_context().meta.get(_KEY)
    return faults if isinstance(faults, Faults) else Faults()


def _parts(parameter: click.Parameter, options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What the command line has of a parameter, value by value."""
    name = str(parameter.name)
    values = options.get(name)
    if parameter.multiple and isinstance(values, list | tuple):
        yield from ({name: [value]} for value in values)
    else:
        yield {name: values} if name in options else {}
