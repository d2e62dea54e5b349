"""The options of the engine `openai`, read and checked; and the key, which is kept apart.

base_url      where the endpoint is; by default OpenAI's
api           auto: a prompt goes to /completions, a chat to /chat/completions;
              `chat` and `completions`: everything goes there
api_key_file  a file with the key; by default the variable OPENAI_API_KEY has it
rpm, tpm      requests and tokens a minute, at most; by default there is no limit of ours
timeout       seconds that one try may take
max_retries   how often a request is tried again before it fails
extensions    what the endpoint takes beyond, or short of, the common surface
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from db.errors import ModelLoadError, SettingsError
from worker.engine.options import OptionReader
from worker.engine.protocol import EngineConfig

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"

OPTIONS = (
    "base_url", "api", "api_key_file", "rpm", "tpm", "timeout", "max_retries", "extensions",
)  # fmt: skip
APIS = ("auto", "chat", "completions")

#: Requests at once where nobody says, and the most that the client keeps connections for.
_CAPACITY = 64
_MOST_CONNECTIONS = 1000


class Dialect(StrEnum):
    """What an endpoint takes beyond, or short of, the common surface."""

    NONE = "none"
    OPENAI = "openai"
    GOOGLE = "google"
    VLLM = "vllm"


#: Hosts whose dialect is known without being told.
_HOSTS = {
    "api.openai.com": Dialect.OPENAI,
    "generativelanguage.googleapis.com": Dialect.GOOGLE,
}


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Everything about the endpoint but its key."""

    base_url: str
    api: str
    dialect: Dialect
    api_key_file: Path | None
    #: A minute; infinite: unlimited.
    rpm: float
    tpm: float
    #: Seconds.
    timeout: float
    max_retries: int
    #: Requests on the wire, at most.
    capacity: int

    @property
    def host(self) -> str:
        """With the port, where one is given."""
        return urlsplit(self.base_url).netloc


def read(config: EngineConfig) -> EndpointSettings:
    """Raises SettingsError with every option that is unknown or has a bad value."""
    options = OptionReader("openai", config.options, OPTIONS)
    base_url = options.faults.of(_base_url, config.options.get("base_url", OPENAI_URL))
    extensions = options.choice("extensions", ("auto", *Dialect), "auto")
    known = _HOSTS.get(urlsplit(base_url or "").hostname or "", Dialect.NONE)
    file = config.options.get("api_key_file")
    read = EndpointSettings(
        base_url=base_url or "",
        api=options.choice("api", APIS, "auto"),
        dialect=known if extensions == "auto" else Dialect(extensions),
        api_key_file=Path(file).expanduser() if file else None,
        rpm=options.number("rpm", default=float("inf"), at_least=1),
        tpm=options.number("tpm", default=float("inf"), at_least=1),
        timeout=options.finite("timeout", default=300.0, at_least=0.1),
        max_retries=int(options.finite("max_retries", default=5, at_least=0)),
        capacity=min(config.max_concurrency or _CAPACITY, _MOST_CONNECTIONS),
    )
    options.finish()
    return read


def read_key(settings: EndpointSettings) -> SecretStr | None:
    """The key, from the file or the environment; None: the endpoint gets none.

    Raises ModelLoadError, which never shows the key.
    """
    if settings.api_key_file is not None:
        source = f"the file '{settings.api_key_file}'"
        try:
            key = settings.api_key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise ModelLoadError(f"can't read the key from {source}: {reason}") from None
        if not key:
            raise ModelLoadError(f"{source} holds no key")
    else:
        source = f"the variable {KEY_VARIABLE}"
        key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and settings.dialect in (Dialect.OPENAI, Dialect.GOOGLE):
        raise ModelLoadError(
            f"{settings.host} wants a key: set {KEY_VARIABLE}, or name a file that holds it "
            "with the engine option api_key_file"
        )
    # Such a header would be refused with an error that shows it.
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise ModelLoadError(f"what {source} holds is no key: it has blanks or other signs")
    return SecretStr(key) if key else None


def _base_url(text: str) -> str:
    """Raises SettingsError without showing the text, which may hold a secret."""
    parts = urlsplit(text)
    bad = parts.scheme not in ("http", "https") or not parts.hostname
    if bad or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingsError(
            "engine option 'base_url': must be http(s)://host[:port]/path, with no user, "
            f"password or query: the key comes from {KEY_VARIABLE} or api_key_file"
        )
    return text.rstrip("/")
