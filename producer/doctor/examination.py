"""The whole examination, in the order in which a user would mend things."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from db.settings import Settings, redact, variable
from producer.doctor.broker import broker_checks
from producer.doctor.check import Check, carried_out
from producer.doctor.devices import device_checks
from producer.doctor.machine import disk_checks, memory_checks
from producer.doctor.model import model_checks
from producer.doctor.queues import queue_checks
from producer.doctor.storage import storage_checks


def examine(settings: Settings, *, model: str | None = None) -> Iterator[Check]:
    """Look at everything, one part after the other; changes nothing and never raises.

    `model` is the one whose files and workers are looked at; by default the setting's.
    """
    chosen = model if model is not None else settings.model
    yield from carried_out("settings", partial(settings_checks, settings))
    storage = list(carried_out("database", partial(storage_checks, settings)))
    yield from storage
    yield from carried_out("broker", partial(broker_checks, settings))
    yield from carried_out("disk", partial(disk_checks, settings))
    yield from carried_out("memory", memory_checks)
    yield from carried_out("devices", partial(device_checks, settings))
    if chosen is not None:
        yield from carried_out("model", partial(model_checks, chosen, settings.engine))
    if all(check.state == "ok" for check in storage):
        yield from carried_out("workers", partial(queue_checks, settings, chosen))


def settings_checks(settings: Settings) -> Iterator[Check]:
    """Which database and broker are in use, and whether the two reach equally far."""
    database = redact(settings.effective_database_url)
    broker = "embedded" if settings.embedded_broker else redact(settings.effective_broker_url)
    finding = f"home {settings.home}, database {database}, broker {broker}{_others(settings)}"
    if settings.embedded_database and not settings.embedded_broker:
        yield Check(
            "settings",
            "warning",
            f"{finding}: workers on other hosts reach the broker and not the database",
            "set PROMPTMILL_DATABASE_URL to a PostgreSQL that every host reaches",
        )
    elif settings.embedded_broker and not settings.effective_database_url.startswith("sqlite"):
        yield Check(
            "settings",
            "warning",
            f"{finding}: workers on other hosts reach the database and not the broker",
            "set PROMPTMILL_BROKER_URL to a Redis that every host reaches",
        )
    else:
        yield Check("settings", "ok", finding)


def _others(settings: Settings) -> str:
    """What else was set, as the environment would say it."""
    shown = {"home", "database_url", "broker_url"}
    given = sorted(settings.model_fields_set - shown)
    return "".join(f", {variable(name)}={getattr(settings, name)}" for name in given)
