"""What `submit` and `run` notice about their options."""

from __future__ import annotations

import pytest

from producer.commands.submitting import literal_escape


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
