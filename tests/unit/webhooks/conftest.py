"""Databases of both kinds, with the tables of webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.center import databases, dialect
from taskbridge.runtime.migrations import migrate
from taskbridge.webhooks.migrations import FOLDER

if TYPE_CHECKING:
    from support.center import Databases
    from taskbridge.runtime.database import Database

__all__ = ["databases", "dialect"]


@pytest.fixture
def database(databases: Databases, dialect: str) -> Database:
    """A new, migrated database: the test runs once with SQLite and once with PostgreSQL."""
    found = databases.open(databases.empty_url(dialect))
    migrate(found, FOLDER)
    return found


@pytest.fixture
def sqlite(databases: Databases) -> Database:
    """The same with SQLite only, for what does not depend on the database."""
    found = databases.open(databases.empty_url("sqlite"))
    migrate(found, FOLDER)
    return found
