"""Sessions of people who sign in, and the audit trail."""

from __future__ import annotations

from alembic import op

from taskbridge.center.tables import audit, metadata, sessions, sign_ins

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    metadata.create_all(op.get_bind(), [sessions, sign_ins, audit], checkfirst=False)
