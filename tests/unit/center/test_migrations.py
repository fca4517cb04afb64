"""Migrations lead to the tables that the code declares, and one that fails changes nothing."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, insert, inspect, select

from taskbridge.center.migrations import FOLDER
from taskbridge.center.tables import metadata, people
from taskbridge.runtime.database import DatabaseUnavailable
from taskbridge.runtime.follow.tables import metadata as followed
from taskbridge.runtime.migrations import check_revision, migrate
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Table

    from support.center import Databases
    from taskbridge.runtime.database import Database

SCRIPTS = ScriptDirectory(str(FOLDER))
REVISIONS = [each.revision for each in reversed(list(SCRIPTS.walk_revisions()))]
NEXT = """
from alembic import op
import sqlalchemy as sa

revision = "next"
down_revision = "{head}"


def upgrade():
    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("UPDATE people SET name = 'changed'")
    op.execute("{last}")
"""


def next_release(folder: Path, last: str) -> Path:
    """Our migrations and one more, which ends with this statement."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    script = NEXT.format(head=SCRIPTS.get_current_head(), last=last)
    (folder / "versions" / "next_revision.py").write_text(script)
    return folder


def test_migrations_make_the_declared_tables(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        declared = MetaData()
        for each in (*followed.tables.values(), *metadata.tables.values()):
            each.to_metadata(declared)
        assert compare_metadata(context, declared) == []


def test_a_migration_that_fails_half_way_leaves_revision_and_data(database: Database, tmp_path: Path) -> None:
    with database.write() as connection:
        connection.execute(insert(people).values(corp_id="c", user_id="u", partition=0, name="Ann", search=""))
    folder = next_release(tmp_path / "migrations", "INSERT INTO missing VALUES (1)")
    with pytest.raises(DatabaseUnavailable, match="missing"):
        migrate(database, folder)
    with database.read() as connection:
        assert connection.execute(select(people.c.name)).scalar() == "Ann"
        assert not inspect(connection).has_table("notes")
    check_revision(database, FOLDER, service="center")


def test_an_older_release_refuses_the_tables_of_a_newer_one(database: Database, tmp_path: Path) -> None:
    folder = next_release(tmp_path / "migrations", "SELECT 1")
    assert migrate(database, folder) == (REVISIONS[-1], "next")
    with pytest.raises(ConfigurationError, match="newer"):
        check_revision(database, FOLDER, service="center")
    with pytest.raises(ConfigurationError, match="newer"):
        migrate(database, FOLDER)


def test_tables_that_are_behind_name_the_command_and_sqlites_are_migrated(databases: Databases, dialect: str) -> None:
    database = databases.open(databases.empty_url(dialect))
    if dialect == "postgresql":
        with pytest.raises(ConfigurationError, match="taskbridge center --migrate"):
            check_revision(database, FOLDER, service="center")
        migrate(database, FOLDER)
    check_revision(database, FOLDER, service="center")
    with database.read() as connection:
        assert inspect(connection).has_table("people")


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_is_upgraded_with_its_rows(databases: Databases, dialect: str, revision: str) -> None:
    database = databases.open(databases.empty_url(dialect))
    migrate(database, FOLDER, revision)
    with database.write() as connection:
        add_a_row_to_each_table(connection)
        before = rows(connection)
    migrate(database, FOLDER)
    with database.read() as connection:
        after = rows(connection)
    assert before
    for name, found in before.items():
        assert [old | new for old, new in zip(found, after[name], strict=True)] == after[name]
        assert [new | old for old, new in zip(found, after[name], strict=True)] == after[name]


def test_replicas_that_migrate_at_once_migrate_once(databases: Databases, dialect: str) -> None:
    url = databases.empty_url(dialect)
    results: list[tuple[str | None, str | None]] = []
    threads = [threading.Thread(target=lambda: results.append(migrate(databases.open(url), FOLDER))) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(results, key=str) == sorted([(None, REVISIONS[-1]), *[(REVISIONS[-1], REVISIONS[-1])] * 2], key=str)


SAMPLES = {int: 1, bool: True, str: "text", bytes: b"{}"}


def add_a_row_to_each_table(connection: Connection) -> None:
    for table in tables(connection):
        connection.execute(insert(table).values({each.name: SAMPLES[each.type.python_type] for each in table.columns}))


def rows(connection: Connection) -> dict[str, list[dict[str, object]]]:
    return {
        each.name: [dict(row) for row in connection.execute(select(each)).mappings()] for each in tables(connection)
    }


def tables(connection: Connection) -> list[Table]:
    """As they are in the database, without Alembic's."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name != "alembic_version")
    return found.sorted_tables
