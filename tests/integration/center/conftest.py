"""Databases of both kinds for followers on a real Kafka."""

from support.center import database, databases, dialect, sqlite_database

__all__ = ["database", "databases", "dialect", "sqlite_database"]
