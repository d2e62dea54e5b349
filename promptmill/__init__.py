"""Submit prompts and collect results: `from promptmill import Client`.

The library under its own name: everything here lies in `producer` and `db`, and is imported on
first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from db.errors import BrokerUnavailable as BrokerUnavailable
    from db.errors import ConflictError as ConflictError
    from db.errors import DatabaseError as DatabaseError
    from db.errors import DatabaseUnavailable as DatabaseUnavailable
    from db.errors import InputError as InputError
    from db.errors import NotFoundError as NotFoundError
    from db.errors import OutputError as OutputError
    from db.errors import ParameterError as ParameterError
    from db.errors import PromptmillError as PromptmillError
    from db.errors import SettingsError as SettingsError
    from db.errors import UsageError as UsageError
    from db.records import Attempt as Attempt
    from db.records import Batch as Batch
    from db.records import Job as Job
    from db.records import Provenance as Provenance
    from db.records import Result as Result
    from db.records import Worker as Worker
    from db.settings import Settings as Settings
    from producer.client import Client as Client
    from producer.replaying import Replay as Replay
    from producer.submission import InvalidInput as InvalidInput
    from producer.submission import Submission as Submission

#: Module -> what comes from it.
_SOURCES = {
    "db.errors": (
        "BrokerUnavailable", "ConflictError", "DatabaseError", "DatabaseUnavailable",
        "InputError", "NotFoundError", "OutputError", "ParameterError", "PromptmillError",
        "SettingsError", "UsageError",
    ),
    "db.records": ("Attempt", "Batch", "Job", "Provenance", "Result", "Worker"),
    "db.settings": ("Settings",),
    "producer.client": ("Client",),
    "producer.replaying": ("Replay",),
    "producer.submission": ("InvalidInput", "Submission"),
}  # fmt: skip

_MODULES = {name: module for module, names in _SOURCES.items() for name in names}

__all__ = sorted(_MODULES)  # noqa: PLE0605 - a list, and a test compares it with the imports above


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from promptmill.shadowed import require_own_packages

    require_own_packages()
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
