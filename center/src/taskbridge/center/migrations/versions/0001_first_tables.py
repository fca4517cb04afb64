"""The first tables. A revision that changes one of them must write it out here first: ``metadata`` moves on."""

from __future__ import annotations

import secrets

from alembic import op
from sqlalchemy import insert

from taskbridge.center.tables import entries_due, entries_waiting, metadata
from taskbridge.runtime.follow.tables import EPOCH, about
from taskbridge.runtime.follow.tables import metadata as followed

revision = "0001"
down_revision = None

_LATER = (
    *("sessions", "sign_ins", "audit", "actions", "pseudonyms"),
    *("marks", "preferences", "reminders", "delegations"),
)


def upgrade() -> None:
    first = [each for each in metadata.sorted_tables if each.name not in _LATER]
    followed.create_all(op.get_bind(), checkfirst=False)
    metadata.create_all(op.get_bind(), first, checkfirst=False)
    for index in (entries_waiting, entries_due):
        index.drop(op.get_bind())
    op.drop_column("entries", "due_at")  # which 0008 adds, with these indexes
    op.execute(insert(about).values(name=EPOCH, value=secrets.token_hex(8)))
