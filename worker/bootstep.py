"""How Celery and promptmill's worker process meet: one step of Celery's worker blueprint.

Celery starts it after its pool and before its consumer, so that no message is fetched before the
model is loaded; and stops it after the consumer and before the pool, so that slots can finish.
The embedded broker is there before the model, and until the last slot has handed its message back.
Signals are ours: the first SIGTERM or Ctrl-C drains, the second one ends the draining.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import ExitStack
from types import FrameType
from typing import TYPE_CHECKING, Any

from celery import Celery, bootsteps, signals
from celery.worker import state

from db.embedded import embedded_broker
from db.errors import BrokerUnavailable, PromptmillError
from db.ids import worker_name
from db.settings import Settings
from db.wording import listed
from worker.stderr import say

if TYPE_CHECKING:
    from worker.mill import Mill
    from worker.process import WorkerProcess

logger = logging.getLogger(__name__)


class MillStep(bootsteps.StartStopStep):
    """Starts and stops the worker process; holds it for the tasks."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._app: Celery = parent.app
        self._settings: Settings = self._app.promptmill_settings
        self._process: WorkerProcess | None = None
        self._signals = 0
        self._broker = ExitStack()
        # Celery's last word, after its pool: its blueprint stops no step that late.
        signals.worker_shutdown.connect(self._leave_broker)

    def start(self, parent: Any) -> None:
        """Load the model, or end the worker with the reason."""
        from worker.app import send
        from worker.process import WorkerProcess

        if parent.pool_cls.__module__ != "celery.concurrency.thread":
            _give_up(2, "the worker needs Celery's threads pool: start it with --pool threads")
        self._process = WorkerProcess(
            self._settings,
            name=worker_name(os.getpid(), self._app.promptmill_mark),
            send=lambda messages: send(self._app, messages),
            leave=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        try:
            if self._settings.embedded_broker:
                self._broker.enter_context(embedded_broker(self._settings.home))
            self._process.start()
            self._look_for_broker()
        except PromptmillError as error:
            _give_up(error.exit_code, *listed(error.faults))
        except Exception as error:
            logger.exception("can't start", extra={"action": "surprise"})
            what = " ".join(f"{type(error).__name__}: {error}".split())
            _give_up(1, f"unexpected {what}: please report it, with the lines above")
        self._app.promptmill_mill = self._process.mill
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Drain within the grace."""
        if self._process is not None:
            self._process.stop(self._settings.grace)

    terminate = stop

    def _look_for_broker(self) -> None:
        """Name the setting where Redis is away: Celery's own words, which follow, do not."""
        from worker.app import ping

        try:
            ping(self._app)
        except BrokerUnavailable as error:
            logger.warning(
                "%s; until it answers, work comes from the database alone",
                error.message,
                extra={"action": "broker_away"},
            )

    def _leave_broker(self, **_: Any) -> None:
        self._broker.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Only flags are set here: a signal handler may interrupt a lock's holder."""
        self._signals += 1
        if self._signals == 1:
            say(f"stopping: finishing for up to {self._settings.grace:g} s; again to stop now")
            signals.worker_shutting_down.send(sender=self._app, sig=number, how="Warm", exitcode=0)
            state.should_stop = 0
        elif self._signals == 2:
            say("stopping now: unfinished chunks go back to the queue")
        mill: Mill | None = self._process.mill if self._process else None
        if mill is not None:
            mill.interrupt(now=self._signals > 1)


def mill_of(app: Celery) -> Mill:
    """The mill of the worker that runs in this process."""
    mill: Mill = app.promptmill_mill
    return mill


@signals.setup_logging.connect
def _configure_logging(loglevel: int | None = None, **_: Any) -> None:
    from worker.logs import configure

    configure(logging.getLevelName(loglevel) if loglevel else "INFO")


def _give_up(code: int, *reason: str) -> None:
    say(*reason)
    raise SystemExit(code)
