"""What people see: lines, tables and progress on standard error; data on standard output."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO
from unicodedata import category

import click
from rich.cells import cell_len

from db.errors import PromptmillError
from db.exact_json import dumps
from db.wording import count_of, listed
from producer.columns import Column, broken_at_spaces, drawn, fitted

#: What may take several lines in a narrow terminal; an id must not, people copy it.
_FOLDED = {"name", "model", "custom_id", "prompt", "text"}
#: Bad lines of a refused file that are shown; those with the same reason count as one.
_BAD_LINES = 20
#: Columns of a table that goes to a file.
_UNSEEN_WIDTH = 140


def fail(error: PromptmillError) -> None:
    """Say what went wrong, a line for each fault; of a refused file, also its first bad lines."""
    first, *others = listed(error.faults)
    for line in (f"promptmill: {first}", *others):
        note(line)
    shown = getattr(error, "groups", [])[:_BAD_LINES]
    for group in shown[1:]:
        note(f"  {group.message}")
    left = getattr(error, "count", 0) - sum(group.count for group in shown)
    if shown and left > 0:
        note(f"  and {count_of(left, 'more bad line')}")


def note(text: str) -> None:
    """A remark for people: not data, so never on standard output."""
    # Not click.echo, which goes around the live display and breaks it.
    sys.stderr.write(f"{_wrapped_for(sys.stderr, printable(text), indent=2)}\n")
    sys.stderr.flush()


def note_command(text: str, command: str) -> None:
    """A remark with a command to copy, which stays in one piece: `text: command`."""
    text, command = printable(text), printable(command)
    line = f"{text}: {command}"
    if sys.stderr.isatty() and cell_len(line) > terminal_width():
        line = f"{_wrapped_for(sys.stderr, text, indent=2)}:\n  {command}"
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@contextmanager
def shown_input_warnings() -> Iterator[None]:
    """What a reader of files had to guess becomes notes at the end, each once."""
    from producer.reading import InputWarning

    messages: dict[str, None] = {}
    with warnings.catch_warnings():
        show = warnings.showwarning

        def collect(message: Warning | str, category: type[Warning], *others: Any) -> None:
            if issubclass(category, InputWarning):
                messages[str(message)] = None
            else:
                show(message, category, *others)

        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = collect  # type: ignore[assignment] # others are passed on
        try:
            yield
        finally:
            for text in messages:
                note(text)


def emit_json(value: object) -> None:
    """One JSON value a line, for programs."""
    click.echo(dumps(value).decode())


def for_people() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout.isatty()


def iso(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def clock(seconds: float | None) -> str:
    """Unix seconds as this machine's people read them."""
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float, now: float) -> str:
    """Unix seconds as the time since then, in one unit: `5 min ago`."""
    passed = max(0.0, now - seconds)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed // size:.0f} {unit} ago"
    return f"{passed:.0f} s ago"


def duration(seconds: float) -> str:
    """`3 s`, `4 min 5 s`, `2 h 3 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{max(0.0, seconds):.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def rate(per_second: float) -> str | None:
    """`199`, `12,346`, `0.4`; None where it is too small to say, or not measured yet."""
    digits = 0 if per_second >= 9.95 else 1
    text = f"{per_second:,.{digits}f}"
    return None if text == "0.0" else text


def printable(text: str) -> str:
    """The text, with what would steer a terminal made visible; line ends and tabs stay.

    Texts, names and ids come from anywhere: none may move the cursor, set the title or answer
    for somebody who looks at it.
    """
    if text.isprintable():
        return text
    return "".join(one if _harmless(one) else _escaped(one) for one in text)


def _harmless(character: str) -> bool:
    # Unicode has no space but the plain one printable.
    return character in "\n\t" or character.isprintable() or category(character) == "Zs"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def measure(
    logprob: float | None, perplexity: float | None, embedding: Sequence[float] | None
) -> str:
    """A score or an embedding in a few words."""
    if embedding is not None:
        first = ", ".join(f"{number:.4g}" for number in embedding[:4])
        return f"{len(embedding)} numbers: {first}{', …' if len(embedding) > 4 else ''}"
    return f"log-probability {logprob:.4f}, perplexity {perplexity:.4g}"


def calls_in_words(calls: Iterable[Mapping[str, Any]]) -> str:
    """Calls of functions as a person writes them, a line each."""
    functions = [call["function"] for call in calls]
    return "\n".join(f"{one['name']}({one['arguments']})" for one in functions)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, always: bool = False) -> None:
    """Print a table that fits the terminal; tab-separated lines where nobody looks.

    `always` draws it all the same: somebody asked for a table.
    """
    if not (for_people() or always):
        for row in rows:
            click.echo("\t".join(_plain(cell) for cell in row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(header_style="bold", box=box.SIMPLE, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=column not in _FOLDED)
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    Console(width=None if for_people() else _UNSEEN_WIDTH).print(drawn)


def columns_table(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
    """Print the columns that fit the terminal; all of them, tab-separated, where nobody looks."""
    if not for_people():
        for row in rows:
            click.echo("\t".join(_plain(cell) for cell in row))
        return
    texts = [[_plain(cell) for cell in row] for row in rows]
    title, *lines = drawn(*fitted(columns, texts, terminal_width()))
    click.echo(click.style(title, bold=True))
    for line in lines:
        click.echo(line)


def terminal_width() -> int:
    """Cells of a line in this terminal."""
    return shutil.get_terminal_size().columns


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """`name  value` lines, the names in one column; long values are broken at spaces."""
    known = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        line = f"{name:<{width}}  {printable(str(value))}"
        # A long path stays in one piece, for whoever copies it.
        if " " in str(value):
            echo_wrapped(line, indent=width + 2)
        else:
            click.echo(line)


def echo_wrapped(text: str, *, indent: int, used: int = 0) -> None:
    """Print a line; in a terminal broken at spaces, the lines after the first indented.

    `used`: cells of the first line that are printed already.
    """
    click.echo(_wrapped_for(sys.stdout, text, indent=indent, used=used))


def _wrapped_for(stream: TextIO, text: str, *, indent: int = 0, used: int = 0) -> str:
    """The text, broken at spaces where the stream is a terminal."""
    if not stream.isatty():
        return text
    width = terminal_width()
    lines: list[str] = []
    for part in text.split("\n"):
        before = "" if lines else " " * used
        if cell_len(before + part) <= width:
            lines.append(part)
            continue
        first, *others = broken_at_spaces(before + part, width, indent=indent)
        lines += [first[len(before) :], *others]
    return "\n".join(lines)


def _plain(cell: Any) -> str:
    return "" if cell is None else printable(str(cell).replace("\t", " ").replace("\n", " "))
