"""Calls of systems are counted by day for all replicas, and so are the lists of forms to start shared."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

_KEY = {"sqlite": "VARCHAR", "postgresql": 'VARCHAR COLLATE "C"'}
_DATA = {"sqlite": "BLOB", "postgresql": "BYTEA"}
_STATEMENTS = """
CREATE TABLE day_calls (
    corp_id {key} NOT NULL, purpose {key} NOT NULL, day {key} NOT NULL, calls INTEGER NOT NULL,
    PRIMARY KEY (corp_id, purpose, day)
);
CREATE TABLE start_lists (
    corp_id {key} NOT NULL, app_type {key} NOT NULL, due_at BIGINT NOT NULL, data {data},
    PRIMARY KEY (corp_id, app_type)
);
"""


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    for each in _STATEMENTS.format(key=_KEY[dialect], data=_DATA[dialect]).split(";"):
        if each.strip():
            op.execute(each)
