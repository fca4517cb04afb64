"""Due times of sources, and the indexes that have them."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

from taskbridge.center.tables import entries_due, entries_waiting

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("entries", Column("due_at", BigInteger))
    entries_waiting.drop(op.get_bind(), checkfirst=True)
    for index in (entries_waiting, entries_due):
        index.create(op.get_bind())
