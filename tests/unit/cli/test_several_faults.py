"""Everything that is wrong with a command is reported at once, and nothing is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from db.errors import InputError, UsageError
from db.settings import settings
from producer.cli import main
from producer.client import Client

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`promptmill ARGUMENTS` in a folder with the file `f.csv`, which has columns a and b."""
    monkeypatch.chdir(tmp_path)
    Path("f.csv").write_text("a,b\n1,2\n")

    def run(*arguments: str) -> Result:
        settings.cache_clear()
        return CliRunner().invoke(main, arguments, prog_name="promptmill")

    return run


def _reported(done: Result) -> list[str]:
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, done.stdout) == (2, "")
    return done.stderr.splitlines()


def test_submit_reports_all_faults(cli: Cli) -> None:
    done = cli(
        "submit", "no.csv", "none.jsonl", "-m", "./nomodel", "--template", "{a.b} {} {c}",
        "--priority", "99", "--expires", "3", "-p", "n", "-p", "top_p=-1", "-p", "temperatur=1",
        "--metadata", "x=1", "--metadata", "x=2", "--adapter", "l=there", "--name", "n" * 201,
    )  # fmt: skip
    assert _reported(done) == [
        "promptmill: Invalid value for '--priority': 99 is not in the range 0<=x<=9.",
        "  Invalid value for '--expires': '3' is not a duration: write it as 90s, 30m, 24h or 7d",
        (
            "  --adapter l=there: give the name alone, --adapter l: only the workers need to know "
            "where the adapter is"
        ),
        "  'n' is not key=value, as in temperature=0.7",
        "  --metadata x is given twice: keep one",
        "  model ./nomodel: no such folder: check the path or give a hub id",
        "  unknown parameter 'temperatur': did you mean 'temperature'?",
        "  parameter 'top_p': input should be greater than 0, not -1",
        "  the name has 201 characters: 1 to 200 are allowed",
        "  no.csv: no such file: check the path",
        "  none.jsonl: no such file: check the path",
        (
            "  template '{a.b} {} {c}': {a.b...} is more than a column's plain name: write columns "
            "as {name}, a brace as {{"
        ),
        "  template '{a.b} {} {c}': {} names no column: write columns as {name}, a brace as {{",
    ]
    assert cli("list").stdout == ""


def test_columns_that_a_file_lacks_are_reported_beside_bad_parameters(cli: Cli) -> None:
    done = cli("submit", "f.csv", "-m", "m", "--template", "{c} {a} {d}", "-p", "n=0")
    assert _reported(done) == [
        "promptmill: parameter 'n': input should be greater than or equal to 1, not 0",
        "  f.csv: no column 'c' for the template: there are 'a', 'b'",
        "  f.csv: no column 'd' for the template: there are 'a', 'b'",
    ]


def test_missing_model_is_reported_beside_bad_parameters(cli: Cli) -> None:
    assert _reported(cli("submit", "f.csv", "--template", "{a}", "-p", "n=0")) == [
        "promptmill: parameter 'n': input should be greater than or equal to 1, not 0",
        "  which model? give --model, or set PROMPTMILL_MODEL",
    ]


def test_what_depends_on_a_bad_option_is_not_reported(cli: Cli) -> None:
    Path("f.data").write_text("x")
    done = cli("submit", "f.data", "-m", "m", "--format", "josn", "--mode", "scor", "-p", "n=0")
    assert _reported(done) == [
        (
            "promptmill: Invalid value for '--mode': 'scor' is not one of 'generate', 'score', "
            "'embed'."
        ),
        (
            "  Invalid value for '--format': 'josn' is not one of 'jsonl', 'txt', 'csv', 'tsv', "
            "'parquet'."
        ),
    ]


def test_run_reports_all_faults(cli: Cli) -> None:
    done = cli(
        "run", "f.csv", "no.csv", "-m", "m", "--engine", "vlm", "--device", "gpu",
        "--adapter", "l=./none", "-o", "no/x.xyz", "--table", "--json",
        "--output-column", "text=a", "--output-column", "text=b",
    )  # fmt: skip
    assert _reported(done) == [
        (
            "promptmill: Invalid value for '--engine': 'vlm' is not one of 'transformers', "
            "'keras', 'vllm', 'openai', 'echo'."
        ),
        "  --output-column text is given twice: keep one",
        "  no/x.xyz: its folder does not exist: create it with 'mkdir -p no'",
        (
            "  no/x.xyz: the suffix '.xyz' is unknown: end it in .jsonl, .csv or .parquet, or give "
            "--output-format (jsonl, csv, parquet, openai)"
        ),
        "  --table is for people and --json for programs: leave one out",
        "  adapter 'l': ./none: no such folder: check the path",
        "  --device: 'gpu' is none of auto, cpu, cuda and cuda:N",
        "  no.csv: no such file: check the path",
    ]
    assert cli("list").stdout == ""


def test_run_reports_a_model_that_cannot_be_served_beside_other_faults(
    cli: Cli, tmp_path: Path
) -> None:
    Path("empty").mkdir()
    lines = _reported(cli("run", "no.csv", "-m", "empty", "-p", "n=0", "-o", "f.csv"))
    assert lines[0].startswith(f"promptmill: model {tmp_path}/empty/config.json: missing")
    assert lines[-2:] == [
        "  parameter 'n': input should be greater than or equal to 1, not 0",
        "  no.csv: no such file: check the path",
    ]


def test_output_format_without_a_file_is_refused(cli: Cli) -> None:
    done = cli("run", "f.csv", "-m", "m", "--template", "{a}", "--output-format", "csv")
    assert _reported(done) == [
        "promptmill: --output-format is the format of a file: name the file with -o"
    ]


def test_results_reports_all_faults(cli: Cli) -> None:
    with Client() as client:
        batch = client.submit(["x"], model="m").id
    done = cli(
        "results", batch, "--succeeded", "--failed", "-o", "no/x.csv", "--columns", "z,y",
        "--output-column", "texd=t", "--output-column", "weights=w",
    )  # fmt: skip
    lines = _reported(done)
    assert "no column 'texd'" in lines.pop(2)
    assert lines == [
        "promptmill: give one of --succeeded and --failed: they exclude each other",
        "  no/x.csv: its folder does not exist: create it with 'mkdir -p no'",
        "  --output-column weights=w: it is only written with --provenance",
    ]
    done = cli("results", "bbbbbbbbbbbb", "--rows-per-file", "9", "--format", "openai")
    assert _reported(done) == [
        "promptmill: no batch bbbbbbbbbbbb: 'promptmill list' shows the batches that there are",
        "  --rows-per-file writes into a folder of this machine: name it with -o",
        "  format openai is for one file: leave out --rows-per-file",
    ]


def test_retry_reports_all_faults(cli: Cli) -> None:
    assert _reported(cli("retry", "bbbbbbbbbbbb", "--job", "0")) == [
        "promptmill: Invalid value for '--job': 0 is not in the range x>=1.",
        "  no batch bbbbbbbbbbbb: 'promptmill list' shows the batches that there are",
    ]


def test_worker_reports_its_options_and_those_of_its_engine(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = '{"latenzy": 1, "kapacity": 3, "faults": "x"}'
    monkeypatch.setenv("PROMPTMILL_ENGINE_OPTIONS", options)
    done = cli("worker", "-m", "m", "--engine", "echo", "--dtype", "foo", "--gpus", "first")
    assert _reported(done) == [
        (
            "promptmill: Invalid value for '--dtype': 'foo' is not one of 'auto', 'float32', "
            "'bfloat16', 'float16'."
        ),
        "  --gpus first: give 'all', or numbers as in 0,2",
        (
            "  engine 'echo' has no option 'latenzy': did you mean 'latency'? known: capacity, "
            "faults, latency"
        ),
        (
            "  engine 'echo' has no option 'kapacity': did you mean 'capacity'? known: capacity, "
            "faults, latency"
        ),
        "  engine option 'faults': 'x' is not one of off, on",
    ]


def test_all_bad_settings_are_reported_beside_bad_options(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTMILL_LEESE", "3")
    monkeypatch.setenv("PROMPTMILL_GRACE", "soon")
    assert _reported(cli("submit", "no.csv", "-p", "x")) == [
        "promptmill: unknown setting PROMPTMILL_LEESE: did you mean PROMPTMILL_LEASE?",
        "  PROMPTMILL_GRACE: input should be a valid number, unable to parse string as a number",
        "  'x' is not key=value, as in temperature=0.7",
        "  no.csv: no such file: check the path",
    ]


def test_bad_values_of_any_command_are_reported_together(cli: Cli) -> None:
    assert _reported(cli("list", "--limit", "0", "--since", "x", "--state", "new"))[::2] == [
        "promptmill: Invalid value for '-n' / '--limit': 0 is not in the range x>=1.",
        "  Invalid value for '--since': 'x' is not a duration: write it as 90s, 30m, 24h or 7d",
    ]


def test_each_value_of_a_repeated_option_is_reported(cli: Cli) -> None:
    assert _reported(cli("submit", "f.csv", "-m", "m", "--metadata", "a", "--metadata", "b")) == [
        "promptmill: Invalid value for '--metadata': 'a' is not key=value",
        "  Invalid value for '--metadata': 'b' is not key=value",
        (
            "  f.csv: no column 'prompt' among 'a', 'b': rename one, or say how a row becomes a "
            'prompt, as in --template "Translate: {text}"'
        ),
    ]


def test_missing_argument_is_reported_beside_bad_values(cli: Cli) -> None:
    assert _reported(cli("submit", "--priority", "99")) == [
        "promptmill: Missing argument 'FILE...'.",
        "  Invalid value for '--priority': 99 is not in the range 0<=x<=9.",
    ]


def test_single_bad_value_is_reported_with_the_usage(cli: Cli) -> None:
    Path("a.txt").write_text("Hello\n")
    assert _reported(cli("submit", "a.txt", "-m", "m", "--priority", "99")) == [
        "Usage: promptmill submit [OPTIONS] FILE...",
        "Try 'promptmill submit --help' for help.",
        "",
        "Error: Invalid value for '--priority': 99 is not in the range 0<=x<=9.",
    ]
    assert cli("list").stdout == ""


def test_twenty_faults_are_shown(cli: Cli) -> None:
    lines = _reported(cli("submit", *(f"{number}.txt" for number in range(30)), "-m", "m"))
    assert lines[0] == "promptmill: 0.txt: no such file: check the path"
    assert lines[-2:] == ["  19.txt: no such file: check the path", "  and 10 more"]
    assert len(lines) == 21


def test_client_raises_all_faults_at_once() -> None:
    with Client() as client, pytest.raises(UsageError) as raised:
        client.submit(
            ["x"], model="./no", name="", params={"n": 0}, template="{}", metadata={"": "v"}
        )
    assert raised.value.faults == (
        "model ./no: no such folder: check the path or give a hub id",
        "parameter 'n': input should be greater than or equal to 1, not 0",
        "the name has 0 characters: 1 to 200 are allowed",
        "metadata '': a key has 1 to 64 characters, a value up to 512",
        "template '{}': {} names no column: write columns as {name}, a brace as {{",
    )


def test_client_raises_input_errors_as_one(tmp_path: Path) -> None:
    with Client() as client, pytest.raises(InputError) as raised:
        client.submit_files([str(tmp_path / "a"), str(tmp_path / "b")], model="m")
    assert [fault.partition(": ")[2] for fault in raised.value.faults] == [
        "no such file: check the path"
    ] * 2
