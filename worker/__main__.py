"""`python -m worker`: one worker process, or some that are kept alive, set by the environment."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import warnings
from typing import TYPE_CHECKING

from db.database import Database
from db.errors import PromptmillError
from db.faults import Faults
from db.migrate import ready
from db.patience import patiently
from db.settings import Settings, settings
from db.throughput import for_throughput
from db.wording import listed
from worker.parent import leave_with_parent
from worker.stderr import say

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

#: The exit code of a worker that had started and then broke (EX_SOFTWARE): start it again.
BROKEN = 70


def main() -> int:
    """Run until told to stop; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="start it again whenever it dies")
    parser.add_argument("--gpus", metavar="all|0,2", help="the same, with one process per GPU")
    parser.add_argument(
        "--leave-with-parent", action="store_true", help="stop when standard input ends"
    )
    parser.add_argument("--mark", help="the end of this worker's name, for whoever keeps it")
    parser.add_argument("--after", metavar="NAME", help="a worker that died: requeue its chunks")
    parser.add_argument(
        "--check", action="store_true", help="print what is wrong with the settings, and end"
    )
    arguments = parser.parse_args()
    if arguments.check:
        return _check()
    if arguments.leave_with_parent:
        leave_with_parent()
    try:
        config = settings()
        if arguments.keep or arguments.gpus is not None:
            from worker.supervisor import supervise

            return supervise(config, arguments.gpus)
        return run(config, arguments.mark, after=arguments.after)
    except PromptmillError as error:
        say(*listed(error.faults))
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _check() -> int:
    """Print each fault of the settings and of the engine's options in a line; the exit code."""
    from worker.engine.registry import check, create
    from worker.loading import engine_config

    try:
        config = settings()
        engine = engine_config(config, config.model or "")
        faults = Faults()
        if faults.passes(check, config.engine, engine):
            faults.of(create, config.engine, engine)
        faults.raise_all()
    except PromptmillError as error:
        sys.stdout.write("".join(f"{fault}\n" for fault in error.faults))
        return error.exit_code
    return 0


def run(config: Settings, mark: str | None = None, *, after: str | None = None) -> int:
    """One Celery worker in this process; first, the chunks of the one that it comes `after`."""
    from celery.exceptions import SecurityWarning

    from worker.app import make_app
    from worker.logs import configure

    configure(config.log_level)
    # Before Celery takes the signals: whoever waits can be stopped.
    patiently(lambda: _look_for_database(config, after), config.patience)

    # Celery warns root of pickle, which we never read.
    warnings.simplefilter("ignore", SecurityWarning)
    app = make_app(config, mark)
    app.set_current()
    # Unique, so that remote control reaches each of several workers on one host.
    name = f"promptmill-{os.getpid()}@{socket.gethostname()}"
    worker = app.Worker(
        hostname=name,
        loglevel=config.log_level,
        quiet=True,
        task_events=False,
        # Workers have nothing to tell each other: they meet in the database.
        without_gossip=True,
    )
    try:
        with for_throughput():
            worker.start()
        code = int(worker.exitcode or 0)
    except Exception:
        if not _was_ready(app):
            raise
        logger.exception("Celery's worker broke", extra={"action": "surprise"})
        return BROKEN
    # 1 and 2 say that it could not start, and whoever keeps it would give up.
    return BROKEN if code in (1, 2) and _was_ready(app) else code


def _was_ready(app: Celery) -> bool:
    return hasattr(app, "promptmill_mill")


def _look_for_database(config: Settings, after: str | None) -> None:
    from worker.recovery import deaths

    database = Database(config)
    try:
        ready(database)
        if after is not None:
            with database.write() as connection:
                deaths.run(connection, after, max_attempts=config.max_attempts)
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
