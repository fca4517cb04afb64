"""Migrations lead to the tables that the code declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData

from taskbridge.runtime.follow.tables import metadata as followed
from taskbridge.webhooks.tables import metadata

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database


def test_migrations_make_the_declared_tables(database: Database) -> None:
    declared = MetaData()
    for each in (*followed.tables.values(), *metadata.tables.values()):
        each.to_metadata(declared)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, declared) == []
