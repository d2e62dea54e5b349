"""Submit files with a counter for people: what `submit` and `run` begin with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from producer.commands.options import parameters

if TYPE_CHECKING:
    from producer.client import Client
    from producer.submission import Submission


def submit_files(
    client: Client,
    files: tuple[str, ...],
    *,
    params: tuple[str, ...],
    schema: str | None,
    metadata: tuple[tuple[str, str], ...],
    **options: Any,
) -> Submission:
    """Queue FILES under the options of `submit_options`.

    Raises UsageError with the faults of all of them at once.
    """
    from db.throughput import for_throughput
    from producer.counter import counting
    from producer.display import note, shown_input_warnings

    given, labels = checked_options(params, schema, metadata)
    if (remark := literal_escape(options.get("template"))) is not None:
        note(remark)
    with shown_input_warnings(), counting("reading") as on_progress, for_throughput():
        return client.submit_files(
            files,
            params=given,
            metadata=labels,
            on_progress=on_progress,
            **options,
        )


def checked_options(
    params: tuple[str, ...], schema: str | None, metadata: tuple[tuple[str, str], ...]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters and labels. Raises UsageError with the faults of both."""
    from db.errors import ParameterError, UsageError
    from db.wording import joined
    from producer.submission.order import metadata_faults

    given: dict[str, Any] = {}
    faults: list[str] = []
    try:
        given = parameters(params, schema)
    except ParameterError as error:
        faults.append(error.message)
    labels = dict(metadata)
    keys = [key for key, _ in metadata]
    faults += [f"--metadata {key} is given twice" for key in labels if keys.count(key) > 1]
    faults += [f"--{fault}" for fault in metadata_faults(labels)]
    if faults:
        raise UsageError(joined(faults))
    return given, labels


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
