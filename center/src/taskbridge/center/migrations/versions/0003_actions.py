"""What people decide in the task center."""

from __future__ import annotations

from alembic import op

from taskbridge.center.tables import actions, metadata

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    metadata.create_all(op.get_bind(), [actions], checkfirst=False)
