"""The revisions of the tables: applied in one transaction, so that a failed one leaves the previous revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.runtime.database import Database

_LOCK = 0x7461736B
"""PostgreSQL's advisory lock during a migration: of two replicas that start together, one waits."""


def migrate(database: Database, folder: Path, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring the tables to ``revision`` of those in the folder; returns the revisions before and after.

    Raises:
        ConfigurationError: A newer release has changed the tables.
        DatabaseUnavailable: The database does not answer, or a statement failed: nothing has changed.
    """
    scripts = ScriptDirectory(str(folder))
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("SET LOCAL lock_timeout = 0"))
        database.lock(connection, _LOCK)
        before = _revision(connection, scripts)

        def steps(current: Any, _context: MigrationContext) -> Any:
            return scripts._upgrade_revs(revision, current)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as Alembic's own command

        # SQLite rolls back DDL too; Alembic assumes that the driver commits before it.
        context = MigrationContext.configure(connection, opts={"fn": steps, "transactional_ddl": True})
        with Operations.context(context):
            context.run_migrations()
        return before, _revision(connection, scripts)


def check_revision(database: Database, folder: Path, *, service: str) -> None:
    """Raise ConfigurationError unless the tables are those of this release; SQLite's are changed into them."""
    if database.is_sqlite:
        migrate(database, folder)
    scripts = ScriptDirectory(str(folder))
    with database.read() as connection:
        found = _revision(connection, scripts)
    if found != (head := scripts.get_current_head()):
        raise ConfigurationError(
            f"the database has revision {found or 'none'}, this release needs {head}:"
            f" run 'taskbridge {service} --migrate'"
        )


def _revision(connection: Connection, scripts: ScriptDirectory) -> str | None:
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {each.revision for each in scripts.walk_revisions()}:
        raise ConfigurationError(
            f"the database has revision {revision}, which this release does not know: run the release that wrote it,"
            " or a newer one"
        )
    return revision
