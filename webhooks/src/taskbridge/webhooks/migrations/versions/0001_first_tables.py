"""The tables of the first release. The revision after it must write them out here first: ``metadata`` moves on."""

from __future__ import annotations

from alembic import op

from taskbridge.runtime.follow.tables import metadata as followed
from taskbridge.webhooks.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    for each in (followed, metadata):
        each.create_all(op.get_bind(), checkfirst=False)
