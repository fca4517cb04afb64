"""What people mark in their lists, and what they prefer."""

from __future__ import annotations

from alembic import op

from taskbridge.center.tables import marks, metadata, preferences

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    metadata.create_all(op.get_bind(), [marks, preferences], checkfirst=False)
