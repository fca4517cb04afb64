"""The tables of the first release. A revision that changes one must write it out here first: ``metadata`` moves on.

It has the number of the last revision before that release, which led to the same tables.
"""

from __future__ import annotations

import secrets

from alembic import op
from sqlalchemy import insert

from taskbridge.center.tables import metadata
from taskbridge.runtime.follow.tables import EPOCH, about
from taskbridge.runtime.follow.tables import metadata as followed

revision = "0008"
down_revision = None


def upgrade() -> None:
    for each in (followed, metadata):
        each.create_all(op.get_bind(), checkfirst=False)
    op.execute(insert(about).values(name=EPOCH, value=secrets.token_hex(8)))
