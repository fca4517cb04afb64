"""Reminders, and an index of pending entries, which a new database has by its first revision. The other: see 0008."""

from __future__ import annotations

from alembic import op
from sqlalchemy import func, update

from taskbridge.center.tables import NAME_CHARACTERS, entries, entries_age, metadata, reminders

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for name in (entries.c.app_type, entries.c.process_name):
        shortened = func.substr(name, 1, NAME_CHARACTERS)
        op.execute(update(entries).values({name: shortened}).where(func.length(name) > NAME_CHARACTERS))
    entries_age.create(op.get_bind(), checkfirst=True)
    metadata.create_all(op.get_bind(), [reminders], checkfirst=False)
