"""Delegations."""

from __future__ import annotations

from alembic import op

from taskbridge.center.tables import delegations

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    delegations.create(op.get_bind())
