"""Databases of both kinds for the tests of the task center."""

from pathlib import Path

import pytest

from support.center import database, databases, sqlite_database

__all__ = ["database", "databases", "sqlite_database"]

FOLDER = Path(__file__).parent
QUERIES = ("answers", "export", "marks", "pages", "push", "start", "waiting")
OF_SQL = {FOLDER, FOLDER / "live", FOLDER / "operations", *(FOLDER / "api" / f"test_{each}.py" for each in QUERIES)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of SQL run with both: of this folder, and those that answer what queries found. The others run with
    PostgreSQL, and nightly with SQLite.

    There, what does not depend on the database is tested with SQLite in every run: `sqlite_database`.
    """
    if "dialect" in metafunc.fixturenames:
        path = metafunc.definition.path
        is_of_sql = path in OF_SQL or path.parent in OF_SQL
        sqlite = pytest.param("sqlite", marks=() if is_of_sql else pytest.mark.nightly)
        metafunc.parametrize("dialect", [sqlite, "postgresql"], indirect=True)


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param
