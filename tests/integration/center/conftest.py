"""Databases of both kinds for followers on a real Kafka; tests of replicas use PostgreSQL in every run."""

import pytest

from support.center import database, databases, sqlite_database

__all__ = ["database", "databases", "sqlite_database"]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)])
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param
