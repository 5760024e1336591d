"""Alembic's environment: runs revisions on the connection that :func:`gateway.store.migrations.migrate` hands over."""

from __future__ import annotations

from alembic import context

from gateway.store.tables import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    # The caller's transaction holds everything; SQLite's schema changes are transactional.
    transactional_ddl=True,
)
context.run_migrations()
