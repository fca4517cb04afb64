"""Sessions of people who sign in, and the audit trail."""

from __future__ import annotations

from alembic import op
from sqlalchemy import MetaData

from taskbridge.center.tables import audit, metadata, sessions, sign_ins

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    metadata.create_all(op.get_bind(), [sessions, sign_ins], checkfirst=False)
    first = audit.to_metadata(MetaData())
    first.indexes.clear()
    first.create(op.get_bind())
