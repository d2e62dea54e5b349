"""The audit finds nothing at any moment of a real run, whatever users do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from db.database import Database
from db.errors import ConflictError
from db.queries.audit import Violation, audit
from db.states import BatchState
from tests.acceptance.mill import Mill, echoing

#: Jobs of each batch.
_JOBS = 400
#: Some 100 jobs a second and worker, so that there is something to meddle with.
_ENGINE = echoing(latency=0.1, capacity=10, faults=True)


class Auditor(threading.Thread):
    """Audits again and again until it is stopped."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="auditor", daemon=True)
        self._database = database
        self._stopping = threading.Event()
        self.rounds = 0
        self.found: list[Violation] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set() and not self.found:
                with self._database.read() as connection:
                    self.found = audit(connection)
                self.rounds += 1
        except Exception as error:  # noqa: BLE001 - told by `stop`
            self.error = error

    def stop(self) -> None:
        self._stopping.set()
        self.join(60)
        assert self.error is None
        assert self.found == []


@contextmanager
def auditing(mill: Mill) -> Iterator[Auditor]:
    with closing(Database(mill.client.settings, pool_size=1)) as database:
        auditor = Auditor(database)
        auditor.start()
        yield auditor
        auditor.stop()


@pytest.mark.parametrize("where", ["mill", "embedded"])
def test_given_two_workers_when_steered_and_killed_then_no_audit_ever_finds_a_thing(
    request: pytest.FixtureRequest, where: str
) -> None:
    mill: Mill = request.getfixturevalue(where)
    plain = mill.submit(_JOBS)
    faulty = _submit_faulty(mill)
    doomed = mill.submit(_JOBS, "--priority", "9")
    with auditing(mill) as auditor:
        mortal = mill.worker(_ENGINE)
        mill.worker(_ENGINE)
        mill.until(doomed, lambda found: found.done > 0, "begun")
        mill.client.pause(plain)
        mill.client.cancel(doomed)
        mill.until(faulty, lambda found: found.failed > 3, "failing")
        assert mill.client.retry(faulty) > 0
        mill.client.pause(faulty)
        assert mill.client.retry(faulty) >= 0
        mill.client.resume(plain)
        mill.client.resume(faulty)
        mill.until(plain, lambda found: found.done > 0, "begun")
        mortal.kill()
        mill.finished(plain)
        mill.finished(faulty)
        assert mill.client.retry(faulty) > 0
        mill.finished(faulty)
        rounds = auditor.rounds
    assert rounds > 10
    assert mill.client.batch(doomed).state == BatchState.CANCELLED
    with pytest.raises(ConflictError):
        mill.client.resume(doomed)
    assert mill.run("doctor", "--audit").returncode == 0
    assert mill.run("doctor", "--audit", "--batch", faulty).returncode == 0


def _submit_faulty(mill: Mill) -> str:
    """Two samples a job; some jobs fail at once, some after all their attempts."""
    file = mill.prompts((f"n{line} {_fault(line)}" for line in range(1, _JOBS + 1)), "faulty.txt")
    return mill.ok("submit", file, "--model", mill.model, "--param", "n=2").strip()


def _fault(number: int) -> str:
    return "[[fail]]" if number % 20 == 0 else "[[retry]]" if number % 50 == 1 else "fine"
