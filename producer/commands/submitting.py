"""Submit files with a counter for people: what `submit` and `run` begin with."""

from __future__ import annotations

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
    """Queue FILES under the options of `submit_options`."""
    from db.throughput import for_throughput
    from producer.display import shown_input_warnings
    from producer.progress import counting

    with shown_input_warnings(), counting("reading") as on_progress, for_throughput():
        return client.submit_files(
            files,
            params=parameters(params, schema),
            metadata=dict(metadata),
            on_progress=on_progress,
            **options,
        )
