"""What `submit` and `run` notice about their options."""

from __future__ import annotations

import click
import pytest

from db.faults import Faults
from producer.client import Client
from producer.commands.options import complete_batches
from producer.commands.submitting import checked_options, literal_escape
from producer.commands.worker_options import ENGINES
from worker.engine.registry import engine_names


@pytest.mark.parametrize(
    ("template", "kind"), [(r"Review: {text}\nSentiment:", "line break"), (r"{a}\t{b}", "tab")]
)
def test_escape_that_the_shell_left_alone_is_noticed(template: str, kind: str) -> None:
    remark = literal_escape(template)
    assert remark is not None
    assert f"not a {kind}" in remark
    assert "--template $'" in remark


@pytest.mark.parametrize("template", [None, "{text}", "Review: {text}\nSentiment:", r"C:\\new {x}"])
def test_template_without_such_an_escape_has_no_remark(template: str | None) -> None:
    assert literal_escape(template) is None


def test_faults_of_parameters_and_metadata_are_collected_beside_the_good_ones() -> None:
    faults = Faults()
    given, labels = checked_options(
        ("n", "n=1", "n=2", "seed=7"),
        None,
        (("team", "a"), ("team", "b"), ("key", "x" * 513)),
        faults,
    )
    assert faults.faults == (
        "'n' is not key=value, as in temperature=0.7",
        "parameter 'n' is given twice: keep one",
        "--metadata team is given twice: keep one",
        "--metadata 'key': a key has 1 to 64 characters, a value up to 512",
    )
    assert (given, labels) == ({"n": 2, "seed": 7}, {})


def test_good_options_pass_unchanged() -> None:
    faults = Faults()
    assert checked_options(("n=2",), None, (("team", "a"),), faults) == ({"n": 2}, {"team": "a"})
    assert faults.faults == ()


def test_option_engine_offers_every_engine() -> None:
    assert sorted(ENGINES) == engine_names()


def test_completion_offers_ids_and_names() -> None:
    with Client() as client:
        batch = client.submit(["x"], model="echo", name="nightly")
    context, parameter = click.Context(click.Command("status")), click.Argument(["batch"])
    assert complete_batches(context, parameter, "nig") == ["nightly"]
    assert complete_batches(context, parameter, batch.id[:6]) == [batch.id]
