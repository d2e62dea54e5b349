"""README.md and docs/ against the program: what they name exists, what exists they name."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from db import foreign_names
from db.modes import EmbedParams, Mode, ScoreParams
from db.records import Job, Result
from db.sampling import ALIASES, SamplingParams
from db.settings import PREFIX, Settings, variable
from producer.cli import main
from producer.client import Client
from producer.export.openai_batch import REFUSED
from producer.export.record_columns import RECORD_COLUMNS
from producer.reading import Line, read
from producer.reading.keys import NAMES
from tests.support.cli_reference import reference
from tests.support.collector import Collector, request
from tests.support.command_line import parse
from tests.support.processes import WorkerProcess, environment
from worker.engine.parameters import modes_table
from worker.engine.protocol import Cancelled, Completed, EngineConfig, Failed

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if path.exists()
}
EVERYTHING = "\n".join(PAGES.values())
FORMATS, PYTHON = PAGES["docs/formats.md"], PAGES["docs/python.md"]

#: Where the requests of a mode are described.
HEADINGS = {Mode.GENERATE: "## Input", Mode.SCORE: "## Scores", Mode.EMBED: "## Embeddings"}

#: Shown on purpose, as what is refused.
MISSPELT = {"PROMPTMILL_SLOT"}


def section(page: str, heading: str) -> str:
    """A page's text from a heading to the next one of its level or above."""
    level = heading.partition(" ")[0]
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, heading
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row that begins with a name in backticks."""
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def blocks(text: str, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def shown(default: object) -> str:
    """A default as the pages write it."""
    plain = {"None": "unset", "()": "none", "False": "`false`"}.get(str(default))
    if plain is None:
        number = isinstance(default, float) and default.is_integer()
        plain = f"`{default:g}`" if number else f"`{default}`"
    return plain


# --- settings -------------------------------------------------------------------------------


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {names(row[0])[0]: row[2] for row in rows(PAGES["docs/settings.md"])}
    defaults = {
        variable(name): shown(field.get_default(call_default_factory=True, validated_data={}))
        for name, field in Settings.model_fields.items()
    }
    assert documented == defaults


@pytest.mark.parametrize("row", rows(PAGES["docs/settings.md"]), ids=lambda row: row[0])
def test_every_example_of_a_setting_is_valid(
    row: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names(row[0])[0], names(row[4])[0])
    Settings()


def test_no_page_names_a_setting_that_there_is_not() -> None:
    known = {variable(name) for name in Settings.model_fields}
    named = set(re.findall(rf"\b{PREFIX}[A-Z][A-Z_]*\b", EVERYTHING))
    assert not named - known - MISSPELT
    assert not MISSPELT & known


# --- parameters and formats -----------------------------------------------------------------


def test_every_generation_parameter_is_documented_with_its_default() -> None:
    documented = {
        names(row[0])[0]: row[2]
        for row in rows(section(FORMATS, "## Generation parameters"))
        if len(row) == 4
    }
    defaults = {name: shown(field.default) for name, field in SamplingParams.model_fields.items()}
    assert documented == defaults


def test_every_alias_is_documented() -> None:
    table = rows(section(FORMATS, "## Generation parameters"))
    documented = {names(row[0])[0]: names(row[1])[0] for row in table if len(row) == 2}
    assert documented == ALIASES


def test_tables_of_other_systems_parameters_are_the_programs() -> None:
    for table in foreign_names.tables().split("\n\n"):
        assert table in FORMATS


def test_every_parameter_stands_in_the_table_of_the_engines() -> None:
    table = section(PAGES["docs/engines.md"], "## Which parameter works on which engine")
    documented = {name for row in rows(table) for name in names(row[0])}
    assert documented == set(SamplingParams.model_fields)


@pytest.mark.parametrize(
    ("mode", "parameters"), [(Mode.SCORE, ScoreParams), (Mode.EMBED, EmbedParams)]
)
def test_every_parameter_of_another_mode_is_documented_with_its_default(
    mode: Mode, parameters: type[ScoreParams | EmbedParams]
) -> None:
    table = rows(section(FORMATS, HEADINGS[mode]))
    documented = {names(row[0])[0]: row[2] for row in table if len(row) == 4}
    defaults = {
        name: "unset" if field.default is None else f"`{str(field.default).lower()}`"
        for name, field in parameters.model_fields.items()
    }
    assert documented == defaults


def test_every_key_of_a_request_of_another_mode_is_documented() -> None:
    for mode in (Mode.SCORE, Mode.EMBED):
        text = section(FORMATS, HEADINGS[mode])
        assert [key for key in NAMES[mode].prompts if f"`{key}`" not in text] == []
    keys = {name for row in rows(section(FORMATS, "## Scores")) for name in names(row[0])}
    assert keys == {
        "prompt",
        "text",
        "messages",
        "completion",
        "logprobs",
        "adapter",
        "add_special_tokens",
    }


def test_every_option_of_the_engine_transformers_is_documented() -> None:
    pytest.importorskip("torch")
    from worker.engine.transformers import engine
    from worker.engine.transformers.assisted import options

    text, _, _ = section(PAGES["docs/engines.md"], "## `transformers`").partition("\n### ")
    documented = [names(row[0])[0] for row in rows(text) if len(row) == 3]
    assert sorted(documented) == sorted([*engine.OPTIONS, *options.OPTIONS])


def test_the_table_of_modes_is_the_programs() -> None:
    assert modes_table() in PAGES["docs/engines.md"]


@pytest.mark.parametrize("mode", Mode)
def test_every_shown_request_is_valid(mode: Mode, tmp_path: Path) -> None:
    shown_inputs = section(FORMATS, HEADINGS[mode])
    bodies = [
        (suffix, body)
        for suffix, language in (("jsonl", "json"), ("csv", "csv"))
        for body in blocks(shown_inputs, language)
    ]
    assert bodies
    for number, (suffix, body) in enumerate(bodies):
        file = tmp_path / f"{number}.{suffix}"
        file.write_text(body, "utf-8")
        found = list(read([str(file)], mode=mode))
        assert found
        assert [line for line in found if not isinstance(line, Line)] == []


def test_every_column_of_a_record_is_documented() -> None:
    table = section(section(FORMATS, "## Output"), "### Records")
    documented = [(name, *row[1:]) for row in rows(table) for name in names(row[0])]
    declared = [
        (column.name, column.type.value, column.part.value, column.meaning)
        for column in RECORD_COLUMNS
    ]
    assert documented == declared


# --- commands -------------------------------------------------------------------------------


def commands(
    group: click.Group = main, path: str = "promptmill"
) -> Iterator[tuple[str, click.Command]]:
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_command_and_option_is_documented() -> None:
    for path, command in commands():
        assert re.search(rf"\b{path}\b", EVERYTHING), path
        for option in command.params:
            if isinstance(option, click.Option):
                pattern = "|".join(rf"{re.escape(one)}(?![\w-])" for one in option.opts)
                assert re.search(rf"(?<![\w-])(?:{pattern})", EVERYTHING), (path, option.opts)


@pytest.mark.parametrize(("path", "command"), list(commands()))
def test_help_fits_eighty_columns(path: str, command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name=path, terminal_width=80))
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_reference_of_commands_is_the_programs() -> None:
    assert PAGES["docs/cli.md"] == reference(), "run: python -m tests.support.cli_reference"


def command_lines(page: str) -> Iterator[list[str]]:
    """The arguments of every `promptmill …` in a page's fenced blocks."""
    typed = re.findall(r"^\$ (.*)$", "\n".join(blocks(page, "console")), re.MULTILINE)
    scripts = "\n".join(blocks(page, "sh", "bash")).splitlines()
    started = re.findall(r"^ExecStart=(.*)$", "\n".join(blocks(page, "ini")), re.MULTILINE)
    for line in [*typed, *scripts, *started]:
        line = re.sub(r"docker compose run --rm (-T )?producer", "promptmill", line)
        words = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        words.whitespace_split = True
        yield from _calls(list(words))


def _calls(words: list[str]) -> Iterator[list[str]]:
    for place, word in enumerate(words):
        if Path(word).name == "promptmill":
            rest = words[place + 1 :]
            ends = (at for at, one in enumerate(rest) if set(one) <= set("();<>|&"))
            yield rest[: next(ends, len(rest))]


@pytest.mark.parametrize("name", PAGES)
def test_every_shown_command_line_is_one_that_the_program_takes(name: str) -> None:
    for words in command_lines(PAGES[name]):
        parse(words)
    for span in re.findall(r"(?<!`)`promptmill ([^`]+)`(?!`)", PAGES[name]):
        words = [word for word in shlex.split(span) if word not in ("--debug", "--version")]
        try:
            parse(words or ["list"])
        except click.MissingParameter:
            continue  # in a sentence, a command goes by its name alone


def test_command_lines_are_found_and_a_wrong_one_is_noticed() -> None:
    assert len(list(command_lines(PAGES["docs/scaling.md"]))) > 20
    page = "```console\n$ X=1 promptmill submit - --modell M > id; echo\n```\n"
    (words,) = command_lines(page)
    assert words == ["submit", "-", "--modell", "M"]
    with pytest.raises(click.NoSuchOption):
        parse(words)


# --- links ----------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """The names that GitHub gives a page's headings."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        twins = sum(re.fullmatch(rf"{slug}(-\d+)?", one) is not None for one in found)
        found.append(f"{slug}-{twins}" if twins else slug)
    return set(found)


@pytest.mark.parametrize("name", PAGES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place.read_text("utf-8")), target


# --- error codes and logs -------------------------------------------------------------------


def sources() -> Iterator[ast.Call]:
    for package in ("db", "worker"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    yield node


def raised_codes() -> tuple[dict[str, str], set[str]]:
    """Error codes with what the code says about `retriable`; and codes that are no literals."""
    codes: dict[str, str] = {}
    others: set[str] = set()
    for call in sources():
        keywords = {one.arg: one.value for one in call.keywords}
        maker = getattr(call.func, "id", "")
        made = call.args[:1] if maker in ("Failed", "Loss") else []
        for code in [*made, *([keywords["error_code"]] if "error_code" in keywords else [])]:
            if isinstance(code, ast.Constant):
                if code.value is not None:
                    again = ast.Constant(True) if maker == "Loss" else keywords.get("retriable")
                    codes[str(code.value)] = ast.unparse(again) if again else "False"
            else:
                others.add(ast.unparse(code))
    return codes, others


def test_every_error_code_is_documented_and_whether_it_is_tried_again() -> None:
    codes, others = raised_codes()
    # Codes that pass through, and those that have a name in the code.
    passed = {"continuation.error", "loss.code", "outcome.code", "row.error_code"}
    passed |= {"code", "INVALID_STRUCTURE"}
    assert others == passed
    from db.queries.jobs import INVALID
    from worker.engine.shared.continuation import NOT_FINITE_ERROR, STRUCTURE_ERROR
    from worker.second_tries import INVALID_STRUCTURE, SURPLUS, TRUNCATED

    codes |= dict.fromkeys((INVALID, NOT_FINITE_ERROR, STRUCTURE_ERROR), "False")
    codes |= dict.fromkeys((INVALID_STRUCTURE, TRUNCATED, SURPLUS), "False")
    table = rows(section(FORMATS, "## Error codes"))
    documented = {name: row for row in table for name in names(row[0])}
    assert set(documented) == set(codes)
    for code, retriable in codes.items():
        again = {"True": "yes", "False": "no"}.get(retriable, "as asked")
        assert documented[code][2].partition(",")[0] == again, code
        assert documented[code][3] == ("yes" if code in REFUSED else "no"), code


def test_every_documented_action_is_logged() -> None:
    code = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "worker").rglob("*.py")))
    logs = section(PAGES["docs/scaling.md"], "## Watching")
    documented = [name for row in rows(logs) for name in names(row[0])]
    assert len(documented) > 10
    assert [name for name in documented if f'"{name}"' not in code] == []


# --- Python ---------------------------------------------------------------------------------


def test_every_field_and_argument_of_the_client_is_documented() -> None:
    wanted = {field.name for field in fields(Job)} | set(Result._fields)
    wanted |= set(inspect.signature(Client.submit).parameters) - {"self", "source"}
    assert [name for name in sorted(wanted) if f"`{name}`" not in PYTHON] == []


def test_every_snippet_of_the_client_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POSTGRES", "REDIS"):  # where the test services are is no setting
        monkeypatch.delenv(f"{PREFIX}TEST_{name}", raising=False)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    snippets = "\n".join(blocks(PYTHON, "python"))
    serving = {variable("model"): "echo", variable("engine"): "echo"}
    worker = WorkerProcess(tmp_path / "worker.log", serving)
    try:
        done = subprocess.run(
            [sys.executable, "-c", snippets],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        worker.signal(signal.SIGTERM)
        worker.ended()
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    promised = re.findall(r"^ *print\(.*\)  # (.*)$", snippets, re.MULTILINE)
    promised += "".join(blocks(PYTHON, "text")).splitlines()
    assert len(promised) > 10
    assert [line for line in promised if line not in printed] == []


def test_the_engine_of_the_page_keeps_its_promises() -> None:
    (snippet,) = blocks(PAGES["docs/engines.md"], "python")
    namespace: dict[str, type] = {}
    exec(snippet, namespace)
    engine = namespace["ShoutEngine"](EngineConfig("any"))
    assert engine.start().engine == "shout"
    collector = Collector()
    engine.submit(request("good", "hello", n=2), collector.on_done)
    engine.submit(request("bad", []), collector.on_done)
    engine.close()
    engine.submit(request("late", "hello"), collector.on_done)
    answers = collector.wait(3)
    good = answers["good"]
    assert isinstance(good, Completed)
    assert [sample.text for sample in good.samples] == ["HELLO", "HELLO"]
    assert isinstance(answers["bad"], Failed)
    assert isinstance(answers["late"], Cancelled)
