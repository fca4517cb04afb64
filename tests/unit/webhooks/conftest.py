"""Databases of both kinds, with the tables of webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.center import databases, dialect
from taskbridge.webhooks.migrations import FOLDER

if TYPE_CHECKING:
    from collections.abc import Generator

    from support.center import Databases
    from taskbridge.runtime.database import Database

__all__ = ["databases", "dialect"]


@pytest.fixture
def database(databases: Databases, dialect: str) -> Generator[Database]:
    """A migrated database without rows: the test runs once with SQLite and once with PostgreSQL."""
    with databases.lent(dialect, FOLDER) as found:
        yield found


@pytest.fixture
def sqlite(databases: Databases) -> Generator[Database]:
    """The same with SQLite only, for what does not depend on the database."""
    with databases.lent("sqlite", FOLDER) as found:
        yield found
