from tests.support.reused import kept_postgres_url, postgres_url  # noqa: F401
