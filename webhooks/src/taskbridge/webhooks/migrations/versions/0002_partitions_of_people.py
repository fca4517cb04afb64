"""People have the partition of their record, so that those erased meanwhile go when it is read again from its start.

The topic is read again: rows of before have no partition, and some of them may be of people who were erased.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_TYPES = {
    "sqlite": {"key": "VARCHAR", "data": "BLOB"},
    "postgresql": {"key": 'VARCHAR COLLATE "C"', "data": "BYTEA"},
}
_CHANGES = """
DROP TABLE people;
CREATE TABLE people (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, partition INTEGER NOT NULL, other_ids {data} NOT NULL,
    PRIMARY KEY (corp_id, user_id)
);
DELETE FROM positions WHERE topic = 'taskbridge.people.v1'
"""


def upgrade() -> None:
    for each in _CHANGES.format_map(_TYPES[op.get_bind().dialect.name]).split(";"):
        op.execute(each)
