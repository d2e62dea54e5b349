"""Settings: read once from the environment, frozen, composed of nothing else.

Every field is an environment variable `PROMPTMILL_<FIELD>`. A bad value raises SettingsError at
start, naming itself. `docs/settings.md` documents every one; a test compares the two.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from db import embedded, service_urls
from db.adapters import check_names
from db.errors import SettingsError, UsageError
from db.faults import Faults
from db.numbers import LARGEST_COUNT

PREFIX = "PROMPTMILL_"

_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):.*@", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"([?&]\w*pass\w*=)[^&]*", re.IGNORECASE)

#: The engine option that says how weights are packed while they are loaded: another text.
QUANTIZATION = "quantization"

#: The shortest `Settings.silence` (seconds): a busy machine is no frozen one.
_SILENCE = 5.0

#: What any timer of the system can wait for: ten years, in seconds.
_LONGEST = 10 * 365 * 86_400.0

Seconds = Annotated[float, Field(gt=0, le=_LONGEST, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Everything that can be set, with its default."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    #: Where the embedded database and broker keep their files.
    home: Path = Path("~/.promptmill")
    #: SQLAlchemy URL; unset: SQLite in `home`.
    database_url: str | None = Field(default=None, repr=False)
    #: Redis URL (`redis://`, `rediss://`); unset: the embedded server in `home`.
    broker_url: str | None = Field(default=None, repr=False)
    #: How long to wait for a database or a Redis that is away (seconds).
    patience: Annotated[float, Field(ge=0, le=_LONGEST, allow_inf_nan=False)] = 300.0

    #: Jobs per message at most; unset: 64, more for a batch of more than 65,536 jobs.
    chunk_size: Annotated[int, Field(ge=1, le=10_000)] | None = None
    #: Bytes of one prompt at most (UTF-8).
    max_prompt_bytes: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] = 2 * 1024 * 1024

    #: The model that a worker serves, and the default of `submit`: a hub id, a local
    #: folder or a GGUF file.
    model: str | None = None
    #: Which engine generates: `transformers`, `keras`, `vllm`, `openai` or `echo`.
    engine: Literal["transformers", "keras", "vllm", "openai", "echo"] = "transformers"
    #: `auto`, `cpu`, `cuda` or `cuda:N`.
    device: str = "auto"
    #: `auto` takes the checkpoint's own.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    #: A commit, branch or tag of a hub model.
    revision: str | None = None
    #: Run Python code that comes with a model. Off: it can do whatever you can.
    trust_remote_code: bool = False
    #: Requests that a model runs at once; unset: the engine's default for the device.
    max_concurrency: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | None = None
    #: Share of the device's free memory for the KV cache; unset: the engine's safe default.
    kv_memory_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    #: Tokens per forward pass at most; unset: the engine's default.
    max_batch_tokens: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | None = None
    #: Engine-specific options as JSON, such as {"latency": "0.1"} for `echo`.
    engine_options: dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]] = Field(
        default_factory=dict
    )
    #: LoRA adapters beside the model as JSON, name -> folder or hub id.
    adapters: dict[str, str] = Field(default_factory=dict)

    #: Work on this batch alone, by its id; unset: on whatever waits for the model.
    batch: str | None = None
    #: Chunks that one worker may hold at once.
    slots: Annotated[int, Field(ge=1, le=256)] = 16
    #: How long a silent worker keeps its chunks (seconds).
    lease: Annotated[float, Field(ge=2, le=_LONGEST, allow_inf_nan=False)] = 30.0
    #: How long a worker that is told to stop may finish its work (seconds).
    grace: Annotated[float, Field(ge=0, le=_LONGEST, allow_inf_nan=False)] = 30.0
    #: An engine that makes no token for so long while it has work hangs (seconds).
    stall_timeout: Annotated[float, Field(ge=1, le=_LONGEST, allow_inf_nan=False)] = 600.0
    #: Attempts of a job before it is parked as failed.
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    #: Results wait at most this long before they are written (seconds).
    flush_interval: Seconds = 0.25
    #: Pause between two rounds of recovery (seconds).
    recovery_interval: Seconds = 5.0
    #: `DEBUG`, `INFO`, `WARNING` or `ERROR`. Prompts appear in logs at DEBUG only.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _named_adapters(self) -> Self:
        try:
            check_names(self.adapters, self.model)
        except UsageError as error:
            raise ValueError(f"{variable('adapters')}: {error.message}") from None
        return self

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is None:
            raise ValueError(f"'{value[:40]}' is none of auto, cpu, cuda and cuda:N")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str | None) -> str | None:
        return None if value is None else service_urls.database_url(value)

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: str | None) -> str | None:
        return None if value is None else service_urls.broker_url(value)

    @property
    def embedded_broker(self) -> bool:
        """Whether promptmill starts and stops its own Redis-compatible server."""
        return self.broker_url is None

    @property
    def embedded_database(self) -> bool:
        return self.database_url is None

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'promptmill.db'}"

    @property
    def effective_broker_url(self) -> str:
        return self.broker_url or embedded.broker_url(self.home)

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between renewals: often enough to notice a cancelled batch within seconds."""
        return min(self.lease / 4, 2.0)

    @property
    def silence(self) -> float:
        """Seconds that a session of PostgreSQL may be silent within a transaction."""
        return max(self.lease / 2, _SILENCE)

    def with_(self, **changes: object) -> Self:
        """A validated copy; None means "leave as it is". Raises SettingsError."""
        given = {name: value for name, value in changes.items() if value is not None}
        try:
            return type(self).model_validate({**self.model_dump(), **given})
        except ValidationError as error:
            raise SettingsError(*_described(error)) from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process. Raises SettingsError naming every bad variable."""
    faults = Faults()
    faults.of(_refuse_unknown, os.environ.keys())
    return faults.checked(faults.of(_from_environment))


def _from_environment() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(*_described(error)) from None
    except ValueError as error:  # pydantic-settings: a value that is not JSON where JSON is due
        field = re.search(r'field "(\w+)"', str(error))
        name = variable(field[1]) if field else PREFIX + "*"
        raise SettingsError(f'{name}: is not valid JSON: write it as {{"name": "value"}}') from None


def redact(url: str) -> str:
    """The URL without its password, fit for a log or a message.

    Not by a URL parser: the libraries that connect take passwords with `#`, `/` or `[`, at which
    a parser stops and the password is shown.
    """
    hidden = _PASSWORD.sub(r"\1:***@", url)
    return _QUERY_PASSWORD.sub(r"\1***", hidden)


def variable(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def _described(error: ValidationError) -> list[str]:
    """What is wrong, a text for each setting."""
    faults: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_input=False):
        reason = str(detail["msg"]).removeprefix("Value error, ")
        name = variable(str(detail["loc"][0])) if detail["loc"] else ""
        # Of several together, the reason names them.
        faults.setdefault(name, f"{name}: {reason[:1].lower()}{reason[1:]}" if name else reason)
    return list(faults.values())


def _refuse_unknown(names: Iterable[str]) -> None:
    """A misspelt setting would silently do nothing: refuse it, and offer the nearest."""
    known = sorted(field.upper() for field in Settings.model_fields)
    faults = []
    for name in sorted(n for n in names if n.startswith(PREFIX)):
        given = name.removeprefix(PREFIX)
        if given not in known:
            near = difflib.get_close_matches(given, known, n=1)
            hint = f": did you mean {PREFIX}{near[0]}?" if near else ": see docs/settings.md"
            faults.append(f"unknown setting {name}{hint}")
    if faults:
        raise SettingsError(*faults)
