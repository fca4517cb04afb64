"""Devices of people who turned push messages on."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"

_KEY = {"sqlite": "VARCHAR", "postgresql": 'VARCHAR COLLATE "C"'}
_STATEMENTS = """
CREATE TABLE push_devices (
    token_sha256 {key} NOT NULL, corp_id {key} NOT NULL, user_id {key} NOT NULL, endpoint_sha256 {key} NOT NULL,
    endpoint TEXT NOT NULL, p256dh {key} NOT NULL, auth {key} NOT NULL, at BIGINT NOT NULL,
    PRIMARY KEY (token_sha256), UNIQUE (endpoint_sha256),
    FOREIGN KEY (token_sha256) REFERENCES sessions (token_sha256) ON DELETE CASCADE
);
CREATE INDEX push_devices_of_person ON push_devices (corp_id, user_id);
"""


def upgrade() -> None:
    for each in _STATEMENTS.format(key=_KEY[op.get_bind().dialect.name]).split(";"):
        if each.strip():
            op.execute(each)
