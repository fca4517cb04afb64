"""Decisions remember the digest of the form that the person saw."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    key = String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")
    op.add_column("actions", Column("seen_form", key, nullable=False, server_default=""))
