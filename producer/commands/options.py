"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import click

from db.errors import ParameterError
from db.faults import Faults

#: Characters of a batch's name.
MAX_NAME = 200

#: For the shell, which completes it; what it may be, reading and exporting decide.
FILE = click.Path(readable=False, allow_dash=True)

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        function
    )


def batch_argument(function: F) -> F:
    return click.argument("batch", shell_complete=complete_batches)(function)


def complete_batches(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The newest batches' ids and names, for the shell."""
    from db.errors import PromptmillError
    from producer.client import Client

    try:
        with Client() as client:
            words = [word for batch in client.batches() for word in (batch.id, batch.name) if word]
            return [word for word in dict.fromkeys(words) if word.startswith(incomplete)]
    except PromptmillError:
        return []


class Pair(click.ParamType[tuple[str, str]]):
    """`key=value`."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, separator, rest = str(value).partition("=")
        if not separator or not key:
            self.fail(f"'{value}' is not key=value", param, ctx)
        return key, rest


class Duration(click.ParamType[float]):
    """`90s`, `30m`, `24h`, `7d`, in seconds."""

    name = "duration"

    _SECONDS: ClassVar = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhd])", str(value).strip())
        if found is None:
            self.fail(f"'{value}' is not a duration: write it as 90s, 30m, 24h or 7d", param, ctx)
        return float(found[1]) * self._SECONDS[found[2]]


def submit_options(function: F) -> F:
    """What `submit` and `run` take alike."""
    for option in reversed(_SUBMIT_OPTIONS):
        function = option(function)
    return function


def _names(
    _context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """The names of a repeated option, each of which may be several, separated by commas."""
    return tuple(name for names in value for name in names.split(",") if name)


_SUBMIT_OPTIONS = (
    click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE),
    click.option("-m", "--model", help="Hub id, folder or GGUF file. Default: PROMPTMILL_MODEL."),
    click.option(
        "--mode",
        type=click.Choice(["generate", "score", "embed"]),
        help="Generate text, score how likely texts are, or compute embeddings. Default: embed if "
        "the first line is for /v1/embeddings, otherwise generate.",
    ),
    click.option("--name", help="Same name and content again: the existing batch."),
    click.option("--idempotency-key", metavar="KEY", help="Same key again: the existing batch."),
    click.option(
        "-p",
        "--param",
        "params",
        multiple=True,
        metavar="KEY=VALUE",
        help="Parameter for every line that does not set it itself; repeat it.",
    ),
    click.option(
        "--schema",
        metavar="FILE",
        type=FILE,
        help="Every text is JSON that follows this JSON Schema (response_format).",
    ),
    click.option(
        "--template",
        metavar="TEXT",
        help="Build prompts from columns, as in 'Translate: {text}' (csv, tsv, parquet, jsonl).",
    ),
    click.option(
        "--system", metavar="TEXT", help="The system message of the chats that --template makes."
    ),
    click.option(
        "--chat/--plain",
        "chat",
        default=None,
        help="Whether --template makes chats or bare prompts. Default: chats if the model has a "
        "chat template.",
    ),
    click.option(
        "--columns",
        multiple=True,
        metavar="NAME",
        callback=_names,
        help="Treat this key or column as data, even if it is named like a parameter; repeat it, "
        "or separate names with commas.",
    ),
    click.option(
        "--format",
        "format",
        type=click.Choice(["jsonl", "txt", "csv", "tsv", "parquet"]),
        help="Format of the files, if their names don't tell it.",
    ),
    click.option(
        "--quoting",
        type=click.Choice(["csv", "none"]),
        help="What quotes mean in csv (default: csv) and tsv (default: none, an ordinary "
        "character).",
    ),
    click.option(
        "--priority",
        type=click.IntRange(0, 9),
        default=5,
        show_default=True,
        help="Higher runs sooner.",
    ),
    click.option(
        "--expires",
        type=Duration(),
        metavar="24h",
        help="Jobs that are unfinished after this time expire (s, m, h, d).",
    ),
    click.option(
        "--skip-invalid", is_flag=True, help="Store bad lines as failed jobs, and run the rest."
    ),
    click.option(
        "--ignore-line-model", is_flag=True, help="Also run lines that name another model."
    ),
    click.option(
        "--metadata",
        multiple=True,
        type=Pair(),
        help="A label of your own; repeat it, up to 16 times.",
    ),
)


def parameters(assignments: tuple[str, ...], schema: str | None, faults: Faults) -> dict[str, Any]:
    """`--param` options and `--schema` as a mapping.

    Adds to the faults what is malformed or given twice, and a schema that is no JSON.
    """
    from db.assignments import parse_assignment

    given: dict[str, Any] = {}
    if schema is not None and (response_format := faults.of(schema_format, schema)) is not None:
        given["response_format"] = response_format
    for assignment in assignments:
        parsed = faults.of(parse_assignment, assignment)
        if parsed is None:
            continue
        name, value = parsed
        if name in given:
            faults.add(ParameterError(f"parameter '{name}' is given twice: keep one"))
        given[name] = value
    return given


def schema_format(path: str) -> dict[str, Any]:
    """The `response_format` of a file with a JSON Schema. Raises ParameterError."""
    from pathlib import Path

    from db.errors import InputError
    from db.exact_json import BrokenJson, loads
    from producer.reading.sources import reading
    from producer.schemas import response_format

    try:
        with reading(path):
            content = Path(path).read_bytes()
    except InputError as error:
        raise ParameterError(f"--schema {error.message}") from None
    try:
        schema = loads(content)
    except BrokenJson as error:
        raise ParameterError(f"--schema {path}: this is not JSON: {error}") from None
    return response_format(Path(path).stem, schema)
