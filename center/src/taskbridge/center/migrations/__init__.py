"""The revisions of the task center's tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.runtime import migrations

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database

FOLDER = Path(__file__).parent


def migrate(database: Database, revision: str = "head", *, folder: Path = FOLDER) -> tuple[str | None, str | None]:
    """As ``runtime.migrations.migrate``."""
    return migrations.migrate(database, folder, revision)


def check_revision(database: Database) -> None:
    """As ``runtime.migrations.check_revision``."""
    migrations.check_revision(database, FOLDER, command="taskbridge center --migrate")
