"""Migrations lead to the tables that the code declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, text

from taskbridge.runtime.follow.tables import metadata as followed
from taskbridge.runtime.migrations import migrate
from taskbridge.webhooks.migrations import FOLDER
from taskbridge.webhooks.tables import metadata

if TYPE_CHECKING:
    from support.center import Databases
    from taskbridge.runtime.database import Database


def test_migrations_make_the_declared_tables(database: Database) -> None:
    declared = MetaData()
    for each in (*followed.tables.values(), *metadata.tables.values()):
        each.to_metadata(declared)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, declared) == []


def test_people_of_the_first_release_are_read_again(databases: Databases, dialect: str) -> None:
    database = databases.open(databases.empty_url(dialect))
    migrate(database, FOLDER, "0001")
    with database.write() as connection:
        connection.execute(text("INSERT INTO people VALUES ('corp', 'erased', :ids)"), {"ids": b"{}"})
        for topic in ("taskbridge.people.v1", "taskbridge.task-notifications.v1"):
            connection.execute(text("INSERT INTO positions VALUES (:topic, 0, 'id', 7, 7, 7)"), {"topic": topic})

    assert migrate(database, FOLDER) == ("0001", "0002")

    with database.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM people")) == 0
        assert connection.scalars(text("SELECT topic FROM positions")).all() == ["taskbridge.task-notifications.v1"]
