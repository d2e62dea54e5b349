"""`rediss://` checks the server's certificate unless it is told not to."""

from __future__ import annotations

import ssl

import pytest

from db.settings import Settings
from worker.app import make_app


@pytest.mark.parametrize(
    ("query", "requirement"),
    [("", ssl.CERT_REQUIRED), ("?ssl_cert_reqs=none", ssl.CERT_NONE)],
)
def test_a_certificate_is_required_unless_the_url_says_otherwise(
    query: str, requirement: ssl.VerifyMode
) -> None:
    # Given a broker with TLS
    app = make_app(Settings(broker_url=f"rediss://queue:6380/0{query}"))

    # When a connection to it is made up
    connection = app.connection_for_write()

    # Then it is told how to check
    assert connection.ssl["ssl_cert_reqs"] is requirement


def test_a_plain_connection_has_no_tls() -> None:
    assert not make_app(Settings(broker_url="redis://queue:6379/0")).connection_for_write().ssl
