"""Installations for the security tests: over services of their own where a test says so."""

from tests.acceptance.conftest import embedded, mill  # noqa: F401
from tests.support.checkpoints import checkpoint  # noqa: F401
