"""The database in which the task center has its sessions."""

from support.center import databases, sqlite_database

__all__ = ["databases", "sqlite_database"]
