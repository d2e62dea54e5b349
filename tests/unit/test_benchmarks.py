"""The benchmarks' own parts: what they put together and how they tell it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SCRIPTS = sorted(
    path
    for path in (ROOT / "benchmarks").glob("*.py")
    if "@click.command" in path.read_text("utf-8")
)


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.stem)
def test_given_a_script_when_read_then_it_begins_with_what_it_is_for_and_how_to_run_it(
    script: Path,
) -> None:
    text = script.read_text("utf-8")
    first = text.split("\n", 1)[0]
    assert first.startswith('"""')
    assert re.search(rf"^    python benchmarks/{script.name}", text, re.MULTILINE), "no example"


def test_every_script_is_in_the_page_of_results() -> None:
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    missing = [path.name for path in _SCRIPTS if path.name not in page]
    assert missing == []
