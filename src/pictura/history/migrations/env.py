"""Alembic's entry: migrations run on the connection they are given, in its transaction."""

from alembic import context

from pictura.history.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite cannot change a table in place
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
