"""This machine's disk and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from db.settings import Settings
from producer.doctor.check import Check, State, gib

#: Bytes free on the home's disk below which one should know, and below which nothing works.
DISK_LOW, DISK_FULL = 1 << 30, 100 << 20

#: Bytes of free memory below which even a small model may not load.
MEMORY_LOW = 1 << 30

#: File systems whose locks SQLite can't rely on.
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre"})


def disk_checks(settings: Settings) -> Iterator[Check]:
    """Is there room in the home folder, may we write there, is it a local disk?"""
    embedded = settings.embedded_database or settings.embedded_broker
    folder = _existing(settings.home)
    if embedded and not os.access(folder, os.W_OK | os.X_OK):
        yield Check(
            "disk",
            "error",
            f"{folder} is not writable",
            "set PROMPTMILL_HOME to a folder of your own",
        )
        return
    kind = _file_system(folder)
    if embedded and kind in _NETWORK:
        yield Check(
            "disk",
            "warning",
            f"{folder} is on a network file system ({kind}), whose locks SQLite can't rely on",
            "set PROMPTMILL_HOME to a local disk, or PROMPTMILL_DATABASE_URL to a PostgreSQL",
        )
    yield disk_check(folder, psutil.disk_usage(str(folder)).free)


def disk_check(folder: Path, free: int) -> Check:
    """`free` is in bytes."""
    state: State = "error" if free < DISK_FULL else "warning" if free < DISK_LOW else "ok"
    advice = None if state == "ok" else "free some space, or set PROMPTMILL_HOME to another disk"
    return Check("disk", state, f"{gib(free)} free for {folder}", advice)


def memory_checks() -> Iterator[Check]:
    memory = psutil.virtual_memory()
    yield memory_check(memory.available, memory.total)


def memory_check(available: int, total: int) -> Check:
    """Both in bytes."""
    finding = f"{gib(available)} of {gib(total)} free"
    if available < MEMORY_LOW:
        return Check("memory", "warning", finding, "end other programs before you start a worker")
    return Check("memory", "ok", finding)


def _existing(path: Path) -> Path:
    """The path itself or its nearest parent that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`, such as `ext4`; empty if unknown."""
    real = path.resolve()
    mounted = {
        Path(partition.mountpoint): partition.fstype
        for partition in psutil.disk_partitions(all=True)
    }
    return next((mounted[place] for place in (real, *real.parents) if place in mounted), "")
