"""A batch of the same content that won't do is passed over, and found again once it will."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from db.modes import Mode
from db.records import Batch
from db.settings import Settings
from producer import Client
from producer.intake import Lines, from_source
from producer.submission import Submission


@pytest.mark.parametrize("repeatable", [True, False], ids=["file", "stdin"])
def test_outdated_batch_is_passed_over(tmp_path: Path, repeatable: bool) -> None:
    client = Client(Settings(home=tmp_path, model="m"))
    client.__dict__["_send"] = len

    def lines() -> Lines:
        read = from_source(
            ["one", "two"],
            template=None,
            given_format=None,
            defaults={},
            max_prompt_bytes=100,
            mode=Mode.GENERATE,
        ).read
        return Lines(read, repeatable)

    def submit(outdated: Callable[[Batch], str | None]) -> Submission:
        return client.submit_lines(lines(), name="run", metadata={}, outdated=outdated)

    first = submit(lambda _: None)
    assert (first.created, first.outdated) == (True, None)
    assert submit(lambda _: None).batch.id == first.batch.id

    second = submit(lambda _: "it changed")
    assert second.created
    assert second.outdated is not None
    assert (second.outdated[0].id, second.outdated[1]) == (first.batch.id, "it changed")

    # The newest that will do is found, whichever it is
    assert submit(lambda _: None).batch.id == second.batch.id
    only_first = submit(lambda batch: None if batch.id == first.batch.id else "no")
    assert (only_first.batch.id, only_first.created) == (first.batch.id, False)
    assert len(client.batches()) == 2
    client.close()
