"""Alembic's entry: always on the connection that `db.migrate.upgrade` hands over."""

from alembic import context

from db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # The caller's transaction holds the lock and commits.
    transactional_ddl=False,
)
context.run_migrations()
