"""Submit files with a counter for people: what `submit` and `run` begin with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from producer.commands.command import bad_options
from producer.commands.options import parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from db.faults import Faults
    from producer.client import Client
    from producer.submission import Submission


def opened_client(faults: Faults, files: tuple[str, ...], options: Mapping[str, Any]) -> Client:
    """A client; `options` are those of `submit_options`.

    Where the settings are bad, raises UsageError with all faults that can be found without them.
    """
    from producer.client import Client
    from producer.reading.sources import find

    client = faults.of(Client)
    if client is not None:
        return client
    checked_options(options["params"], options["schema"], options["metadata"], faults)
    faults.of(find, files)
    return faults.checked(client)


def submit_files(
    client: Client,
    files: tuple[str, ...],
    *,
    faults: Faults,
    params: tuple[str, ...],
    schema: str | None,
    metadata: tuple[tuple[str, str], ...],
    **options: Any,
) -> Submission:
    """Queue FILES under the options of `submit_options`.

    Raises UsageError with the faults of all of them, and of the caller's, at once. What depends on
    an option with a bad value is not checked.
    """
    from db.throughput import for_throughput
    from producer.counter import counting
    from producer.display import note, shown_input_warnings

    given, labels = checked_options(params, schema, metadata, faults)
    if "mode" in bad_options():
        given = {}
    if {"format", "quoting"} & bad_options():
        faults.skip_slow()
    if (remark := literal_escape(options.get("template"))) is not None:
        note(remark)
    with shown_input_warnings(), counting("reading") as on_progress, for_throughput():
        return client.submit_files(
            files,
            params=given,
            metadata=labels,
            faults=faults,
            on_progress=on_progress,
            **options,
        )


def checked_options(
    params: tuple[str, ...],
    schema: str | None,
    metadata: tuple[tuple[str, str], ...],
    faults: Faults,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters and the labels, without those that are among the faults."""
    from producer.submission.order import metadata_faults

    given = parameters(params, schema, faults)
    labels = dict(metadata)
    keys = [key for key, _ in metadata]
    for key in labels:
        if keys.count(key) > 1:
            faults.add(f"--metadata {key} is given twice: keep one")
    refused = metadata_faults(labels)
    for fault in refused:
        faults.add(f"--{fault}")
    return given, {} if refused else labels


def literal_escape(template: str | None) -> str | None:
    r"""What to say of a template with `\n` as two characters, which a shell left as they are."""
    if template is None or "\n" in template:
        return None
    match = re.search(r"(?<!\\)\\[nt]", template)
    if match is None:
        return None
    kind = "line break" if match[0] == "\\n" else "tab"
    return (
        f"--template has {match[0]} as two characters, not a {kind}: in bash and zsh, put a $ "
        "before the quotes: --template $'…\\n…'"
    )
