"""Pseudonyms of the people in the audit trail, and the indices of its filters.

Entries from before keep the ids that they have: their hashes cover them, and the log has both.
"""

from __future__ import annotations

from alembic import op

from taskbridge.center.tables import audit, pseudonyms

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    pseudonyms.create(op.get_bind())
    for each in sorted(audit.indexes, key=lambda index: str(index.name)):
        each.create(op.get_bind())
