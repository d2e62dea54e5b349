"""The URLs of the database and of Redis: which forms and options are taken, and which are refused.

A library would take an option that it does not know as an error of its caller's, wait for a
server because of a value that is no number, or drop it without a word. Messages name an option
and never show a value: a piece of a password may have slipped into it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

#: Schemes of PostgreSQL that mean the driver that is used.
_POSTGRESQL = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://")
_DRIVER = "postgresql+psycopg://"

_HINT = "in a password, write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23"

_WHOLE_NUMBER = re.compile(r"-?\d{1,9}")
_YES_OR_NO = frozenset({"true", "false", "1", "0"})

#: Options of libpq that are whole numbers, and those that are one of some words.
_NUMBERS = frozenset(
    {
        *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval"),
        *("keepalives_count", "tcp_user_timeout"),
    }
)
_WORDS: Mapping[str, frozenset[str]] = {
    "sslmode": frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}),
    "sslcertmode": frozenset({"disable", "allow", "require"}),
    "sslnegotiation": frozenset({"postgres", "direct"}),
    "channel_binding": frozenset({"disable", "prefer", "require"}),
    "gssencmode": frozenset({"disable", "prefer", "require"}),
    "target_session_attrs": frozenset(
        {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}
    ),
    "load_balance_hosts": frozenset({"disable", "random"}),
}
#: Further options of libpq.
_TEXTS = frozenset(
    {
        *("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "options"),
        *("client_encoding", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl"),
        *("sslcrldir", "sslsni", "sslcompression", "ssl_min_protocol_version"),
        *("ssl_max_protocol_version", "requirepeer", "require_auth", "krbsrvname", "gsslib"),
        *("gssdelegation", "service"),
    }
)
#: Options that promptmill sets itself, and why.
_OWN = {
    "prepare_threshold": "promptmill prepares no statements on the server",
    "application_name": "promptmill finds its own sessions by theirs",
    "autocommit": "promptmill ends its transactions itself",
}

#: What a `file:` URI of SQLite may say.
_SQLITE = frozenset({"uri", "mode", "cache", "immutable", "nolock", "psow", "vfs"})

_CERTIFICATES = frozenset({"required", "optional", "none"})
_TLS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"}) | {
    "ssl_check_hostname"
}


def database_url(value: str) -> str:
    """The URL as the driver is told it. Raises ValueError, in words that show no password."""
    if value.startswith("sqlite:///"):
        _check_names(_options(value), _SQLITE, {})
        return value
    scheme = _POSTGRESQL.match(value)
    if scheme is None:
        raise ValueError("must start with postgresql:// or sqlite:///")
    options = _options(value)
    _check_names(options, {*_NUMBERS, *_WORDS, *_TEXTS}, _OWN)
    for name, given in options.items():
        if name in _NUMBERS and _WHOLE_NUMBER.fullmatch(given) is None:
            raise ValueError(f"option '{name}': give a whole number")
        if name in _WORDS and given not in _WORDS[name]:
            raise ValueError(f"option '{name}': give one of {', '.join(sorted(_WORDS[name]))}")
    return _DRIVER + value[scheme.end() :]


def broker_url(value: str) -> str:
    """The URL, as it is. Raises ValueError, in words that show no password."""
    if not value.startswith(("redis://", "rediss://", "redis+socket://")):
        raise ValueError("must start with redis:// or rediss://")
    options = _options(value)
    encrypted = value.startswith("rediss://")
    why_not = {} if encrypted else dict.fromkeys(_TLS, "it needs rediss://, with a second s")
    known = {"virtual_host"} if value.startswith("redis+socket://") else set()
    _check_names(options, known | _TLS if encrypted else known, why_not)
    checks = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if checks not in _CERTIFICATES:
        raise ValueError("option 'ssl_cert_reqs': give one of required, optional, none")
    if options.get("ssl_check_hostname", "true").lower() not in _YES_OR_NO:
        raise ValueError("option 'ssl_check_hostname': give true or false")
    return value


def option_names(url: str) -> frozenset[str]:
    """The options that a URL brings."""
    return frozenset(name for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True))


def _options(url: str) -> dict[str, str]:
    """Name -> value. Raises ValueError for what is no list of options."""
    text = url.partition("?")[2]
    pairs = parse_qsl(text, keep_blank_values=True)
    if "@" in text.partition("&")[0].partition("=")[0] or not all(
        re.fullmatch(r"\w+", name) for name, _ in pairs
    ):
        raise ValueError(f"what follows its '?' are no options: {_HINT}")
    options = dict(pairs)
    if len(options) < len(pairs):
        twice = next(name for name, _ in pairs if [one for one, _ in pairs].count(name) > 1)
        raise ValueError(f"option '{twice}' is given twice: give it once")
    return options


def _check_names(
    options: Mapping[str, str], known: frozenset[str] | set[str], why_not: Mapping[str, str]
) -> None:
    for name in options:
        if name in why_not:
            raise ValueError(f"option '{name}' can't be given: {why_not[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "see docs/settings.md"
            raise ValueError(f"unknown option '{name}': {hint}")
