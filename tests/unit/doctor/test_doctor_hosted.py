"""What the doctor says of a model that somebody else serves."""

from __future__ import annotations

from producer.doctor.model import model_checks


def test_given_a_hosted_model_when_checked_then_no_download_is_announced() -> None:
    (check,) = model_checks("gpt-4.1-mini", "openai")
    assert check.state == "ok"
    assert "endpoint" in check.finding
