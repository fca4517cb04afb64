"""Databases of both kinds for the tests of the task center."""

from support.center import database, databases, dialect, sqlite_database

__all__ = ["database", "databases", "dialect", "sqlite_database"]
