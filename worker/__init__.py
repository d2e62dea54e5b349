"""Workers: a Celery application, and what runs behind it."""

from promptmill.shadowed import require_own_packages

# Also where Celery or Python is told to run this package: a module of the user's called `db` must
# not be taken for ours.
require_own_packages()
