from tests.support.checkpoints import checkpoint  # noqa: F401
