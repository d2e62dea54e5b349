"""URLs of services: forms and options are taken or refused by name, and no value is shown."""

from __future__ import annotations

import pytest

from db.errors import SettingsError
from db.service_urls import broker_url, database_url
from db.settings import Settings

SECRET = "s3cret"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_each_name_of_postgresql_means_its_driver(scheme: str) -> None:
    assert database_url(f"{scheme}://u:p@h:5/d") == "postgresql+psycopg://u:p@h:5/d"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///x.db",
        "sqlite:////x/y.db",
        "postgresql://u@/d?host=/run/postgresql",
        "postgresql://u@h/d?sslmode=verify-full&sslrootcert=/x/ca.pem&connect_timeout=3",
        "postgresql://u@h/d?options=-c%20statement_timeout%3D5s&keepalives_idle=20",
    ],
)
def test_database_url_with_known_options_is_taken(url: str) -> None:
    assert database_url(url).endswith(url.partition("://")[2])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u@h/d", "must start with postgresql:// or sqlite:///"),
        ("postgresql+asyncpg://u@h/d", "must start with postgresql:// or sqlite:///"),
        ("postgresql://h/d?prepare_threshold=0", "option 'prepare_threshold' can't be given"),
        ("postgresql://h/d?application_name=x", "option 'application_name' can't be given"),
        ("postgresql://h/d?connect_timeout=s3cret", "option 'connect_timeout': give a whole"),
        ("postgresql://h/d?sslmode=s3cret", "option 'sslmode': give one of allow, disable"),
        ("postgresql://h/d?sslmod=require", "option 'sslmod': did you mean 'sslmode'?"),
        ("postgresql://h/d?zzz=1", "unknown option 'zzz': see docs/settings.md"),
        ("postgresql://h/d?sslmode=require&sslmode=disable", "'sslmode' is given twice"),
        ("postgresql://u:p?s3cret@h/d", "what follows its '?' are no options: in a password"),
        ("sqlite:///x.db?timeout=s3cret", "unknown option 'timeout'"),
    ],
)
def test_bad_database_url_is_refused_by_name(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as failure:
        database_url(url)
    assert said in str(failure.value)
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p@h:6379/0",
        "redis+socket:///run/redis.sock?virtual_host=2",
        "rediss://h/0?ssl_cert_reqs=none",
        "rediss://h/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/x/ca.pem",
    ],
)
def test_broker_url_with_known_options_is_taken(url: str) -> None:
    assert broker_url(url) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://h", "must start with redis:// or rediss://"),
        ("redis://h/0?socket_timeout=s3cret", "unknown option 'socket_timeout'"),
        ("redis://h/0?ssl_cert_reqs=none", "it needs rediss://, with a second s"),
        ("rediss://h/0?ssl_cert_reqs=s3cret", "give one of required, optional, none"),
        ("rediss://h/0?ssl_ca_cert=/x", "did you mean 'ssl_ca_certs'?"),
        ("rediss://h/0?ssl_check_hostname=s3cret", "'ssl_check_hostname': give true or false"),
    ],
)
def test_bad_broker_url_is_refused_by_name(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as failure:
        broker_url(url)
    assert said in str(failure.value)
    assert SECRET not in str(failure.value)


def test_setting_names_the_variable_of_a_bad_url() -> None:
    with pytest.raises(SettingsError) as failure:
        Settings().with_(database_url="postgresql://h/d?prepare_threshold=0")
    assert failure.value.exit_code == 2
    assert failure.value.message == (
        "PROMPTMILL_DATABASE_URL: option 'prepare_threshold' can't be given: promptmill prepares "
        "no statements on the server"
    )
