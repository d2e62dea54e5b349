"""`promptmill run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from db.records import Batch, FailureGroup
from producer.commands.command import CheckingCommand, bad_options, option_faults
from producer.commands.options import FILE, MAX_NAME, json_option, submit_options
from producer.commands.output_options import OUTPUT_OPTIONS, new_names, output_options
from producer.commands.worker_options import (
    WORKER_OPTIONS,
    engine_faults,
    engine_setting,
    worker_environment,
    worker_options,
)

if TYPE_CHECKING:
    from db.faults import Faults
    from db.settings import Settings
    from producer.client import Client
    from producer.export.layout import RecordOptions
    from producer.exporting import ExportOptions


@click.command("run", cls=CheckingCommand)
@submit_options
@worker_options
@click.option("-o", "--output", metavar="FILE", type=FILE, help="Write the results to this file.")
@click.option(
    "--output-format",
    type=click.Choice(["jsonl", "csv", "parquet", "openai"]),
    help="Default: as the output's name says, otherwise jsonl.",
)
@output_options
@click.option("--table", is_flag=True, help="Show the results as a table.")
@click.option("--fresh", is_flag=True, help="Run it again, even if it ran before.")
@json_option
def command(
    files: tuple[str, ...],
    output: str | None,
    output_format: str | None,
    table: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run FILES of prompts from start to end: queue them, generate here, write the results.

    By default everything is private to this machine: SQLite and a small Redis-compatible server
    in PROMPTMILL_HOME, and one worker process. Run the same command again after Ctrl-C or a
    crash, and it continues where it stopped. Exit 1 if a job failed.

    \b
    Examples:
      promptmill run prompts.jsonl -m openai-community/gpt2 -o results.jsonl
      promptmill run reviews.csv -m M --template $'{text}\\nMood:' -o moods.csv
    """
    from producer.commands.submitting import opened_client, submit_files
    from producer.display import note
    from producer.exporting import ExportOptions, check_layout, check_output, export
    from producer.pipes import reader_may_leave
    from producer.running import generate
    from producer.servable import check_servable

    faults = option_faults()
    raw = options.pop("raw")
    records = _record_options(
        faults,
        templated=options["template"] is not None,
        **{name: options.pop(name) for name in OUTPUT_OPTIONS},
    )
    faults.of(
        check_output, output, output_format,
        option="--output-format", mode=options["mode"], records=records,
        format_known="output_format" not in bad_options(),
    )  # fmt: skip
    faults.of(_check_asked, files, output, output_format, table=table, as_json=as_json)
    given = {name: options.pop(name) for name in WORKER_OPTIONS}
    with opened_client(faults, files, options) as client:
        known = faults.of(worker_environment, model=options["model"], **given)
        environment = known or engine_setting(given)
        adapters = _adapters(environment)
        model = options["model"] or client.settings.model
        if "engine" not in bad_options():
            faults.if_any(engine_faults, environment)
            if model is not None:
                faults.of(check_servable, model, given["engine"] or client.settings.engine)
        options["name"] = options["name"] or _name(files)
        options["variant"] = _variant(client, given, adapters)
        done = submit_files(
            client, files, faults=faults, fresh=fresh, adapters=tuple(adapters),
            engine=given["engine"], outdated=_outdated(client, given, adapters), **options,
        )  # fmt: skip
        batch = done.batch
        for remark in done.notes:
            note(remark)
        wanted = ExportOptions(_without_doubles(records, batch), raw=raw)
        check_layout(client, batch, output, output_format, wanted, new=done.created)
        if not done.created:
            _tell_of_earlier(batch)
        elif done.outdated is not None:
            _tell_of_outdated(batch, *done.outdated)
        if not batch.finished:
            _tell_of_others(client, batch, given, adapters)
            again = "the same command without --fresh" if fresh else "the same command"
            batch = generate(
                client, batch, environment, new=done.created, again=again,
                advice=None if model else _other_models(given["engine"] or client.settings.engine),
            )  # fmt: skip
        if table or (output is None and not as_json):
            _show(client, batch, wanted, as_table=table)
        if output is not None:
            with reader_may_leave():
                export(client, batch, output=output, given_format=output_format, options=wanted)
        failures = client.failures(batch.id)
    _tell_end(batch, failures, output, as_json=as_json)
    if batch.succeeded < batch.total:
        sys.exit(1)


#: Engine options that change how fast texts come, or at what price, and no text.
_SAME_TEXTS = frozenset(
    {
        *("api_key_file", "max_retries", "rpm", "timeout", "tpm"),
        *("cpu_offload", "kv_memory", "kv_offload", "capacity", "latency"),
    }
)


def _name(files: tuple[str, ...]) -> str:
    """What makes the same command find its batch again."""
    # Not pathlib: globs and URLs are no paths, and only need to be the same the next time.
    places = (file if file == "-" or "://" in file else os.path.abspath(file) for file in files)  # noqa: PTH100
    return f"run {' '.join(places)}"[-MAX_NAME:]


def _adapters(environment: dict[str, str]) -> dict[str, str]:
    """Name -> folder or hub id of those that the worker will load."""
    import json

    from db.settings import variable

    adapters: dict[str, str] = json.loads(environment.get(variable("adapters"), "{}"))
    return adapters


def _variant(client: Client, given: dict[str, Any], adapters: dict[str, str]) -> str:
    """What changes the texts, besides model and parameters; empty for the defaults."""
    config = client.settings
    engine, dtype, revision = (
        given[name] or getattr(config, name) for name in ("engine", "dtype", "revision")
    )
    parts = (
        engine != "transformers" and engine,
        dtype != "auto" and dtype,
        revision,
        *(
            f"{name}={value}"
            for name, value in sorted(config.engine_options.items())
            if name not in _SAME_TEXTS
        ),
        *(f"{name}={place}" for name, place in sorted(adapters.items())),
    )
    return " ".join(part for part in parts if part)


def _packing(config: Settings) -> str | None:
    """How weights are packed while they are loaded; None: they are not."""
    from db.settings import QUANTIZATION

    found = config.engine_options.get(QUANTIZATION)
    return None if found == "none" else found


def _tell_of_others(
    client: Client, batch: Batch, given: dict[str, Any], adapters: dict[str, str]
) -> None:
    """A worker that serves the model already shares the batch, in its own way."""
    from producer.display import note
    from producer.documents import adapters_of

    config = client.settings
    engine, dtype = (given[name] or getattr(config, name) for name in ("engine", "dtype"))
    for worker in (worker for worker in client.workers() if worker.stops_at is None):
        there, _, packing = worker.dtype.partition(", ")
        same = worker.engine == engine and dtype in {"auto", there}
        # A checkpoint that has its weights packed is so for every worker.
        same = same and (packing if packing.startswith("bnb-") else None) == _packing(config)
        lacking = sorted(adapters.keys() - adapters_of(worker).keys())
        if worker.model == batch.model and lacking:
            note(
                f"{worker.name} serves {batch.model} too, without adapter {', '.join(lacking)}: it "
                "shares this batch, and what asks for that fails there; stop it"
            )
        elif worker.model == batch.model and not same:
            note(
                f"{worker.name} serves {batch.model} too, with engine {worker.engine} in "
                f"{worker.dtype}: it shares this batch; stop it to have all texts from here"
            )


def _check_asked(
    files: tuple[str, ...],
    output: str | None,
    output_format: str | None,
    *,
    table: bool,
    as_json: bool,
) -> None:
    from db.errors import UsageError

    faults = []
    if table and as_json:
        faults.append("--table is for people and --json for programs: leave one out")
    if output is None and output_format is not None:
        faults.append("--output-format is the format of a file: name the file with -o")
    if output is not None and os.path.realpath(output) in map(os.path.realpath, files):
        faults.append(
            f"{output} is an input: the results would overwrite it; name another file with -o"
        )
    if faults:
        raise UsageError(*faults)


def _tell_of_earlier(batch: Batch) -> None:
    from producer.display import note

    if batch.finished:
        again = f"; 'promptmill retry {batch.id}' its failed jobs" if batch.failed else ""
        note(f"this was run before, as {batch.id}; --fresh runs it again{again}")
    else:
        note(f"going on with {batch.id}: {batch.done:,} of {batch.total:,} are done")


def _other_models(engine: str) -> str:
    """How to run lines that name their model with another one."""
    hosted = "" if engine == "openai" else "; for OpenAI's API, give --engine openai"
    return f"the lines name this model: for another one, give --model M --ignore-line-model{hosted}"


def _outdated(
    client: Client, given: dict[str, Any], adapters: dict[str, str]
) -> Callable[[Batch], str | None]:
    """What has changed of the model since a batch was run; None where nothing has."""
    from producer.model_identity import ModelNow
    from producer.servable import ENGINES_WITHOUT_FILES

    config = client.settings
    engine, revision = (given[name] or getattr(config, name) for name in ("engine", "revision"))

    def change(batch: Batch) -> str | None:
        if engine in ENGINES_WITHOUT_FILES:
            return None
        now = ModelNow(
            batch.model, revision=revision, adapters=adapters, memory=config.home / "digests"
        )
        changes = map(now.change_since, client.served_models(batch))
        return next((one for one in changes if one is not None), None)

    return change


def _tell_of_outdated(batch: Batch, old: Batch, change: str) -> None:
    from producer.display import note

    still = "" if old.finished else f"; 'promptmill cancel {old.id}' ends that one"
    note(
        f"{batch.model} has changed since this was run, as {old.id}: {change}; running it again, "
        f"as {batch.id}; the texts of before stay in {old.id}{still}"
    )


def _tell_end(
    batch: Batch, failures: list[FailureGroup], output: str | None, *, as_json: bool
) -> None:
    from producer.display import emit_json, note
    from producer.documents import batch_document
    from producer.summary import remarks, summary, summary_document

    if as_json:
        document = {**batch_document(batch), **summary_document(batch, failures)}
        emit_json({**document, "output": output})
        return
    note(f"{batch.id} {summary(batch)}")
    for remark in remarks(batch, failures):
        note(remark)
    if output is not None:
        note(f"results: {output}")


def _record_options(
    faults: Faults,
    *,
    templated: bool,
    provenance: bool,
    no_input_columns: bool,
    output_columns: tuple[tuple[str, str], ...],
    expand: bool,
) -> RecordOptions:
    """Prompts come along, unless they are made of columns that do."""
    from producer.export.layout import RecordOptions

    return RecordOptions(
        provenance=provenance,
        with_prompt=not templated,
        input_columns=() if no_input_columns else None,
        names=new_names(output_columns, faults),
        expand=expand,
    )


def _without_doubles(records: RecordOptions, batch: Batch) -> RecordOptions:
    """Without the prompt where it is an input column, too."""
    from dataclasses import replace

    from producer.export.record_columns import REQUEST_COLUMNS

    ours = {column.name for column in REQUEST_COLUMNS}
    theirs = {column.name for column in batch.input_columns}
    twice = records.input_columns is None and not ours.isdisjoint(theirs)
    return replace(records, with_prompt=records.with_prompt and not twice)


def _show(client: Client, batch: Batch, wanted: ExportOptions, *, as_table: bool) -> None:
    from producer.display import for_people
    from producer.exporting import export
    from producer.pipes import reader_may_leave
    from producer.results_table import print_table

    if as_table or for_people():
        print_table(client.results(batch.id, order="input", with_request=True))
    else:
        with reader_may_leave():
            export(client, batch, output=None, given_format=None, options=wanted)
