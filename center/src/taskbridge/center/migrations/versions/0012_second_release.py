"""What the tables have got since the first release: push devices, seen forms, calls of a day, and assistants."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0008"

_TYPES = {
    "sqlite": {"key": "VARCHAR", "data": "BLOB"},
    "postgresql": {"key": 'VARCHAR COLLATE "C"', "data": "BYTEA"},
}
_CHANGES = """
ALTER TABLE actions ADD COLUMN seen_form {key} DEFAULT '' NOT NULL;
CREATE TABLE push_devices (
    token_sha256 {key} NOT NULL, corp_id {key} NOT NULL, user_id {key} NOT NULL, endpoint_sha256 {key} NOT NULL,
    endpoint TEXT NOT NULL, p256dh {key} NOT NULL, auth {key} NOT NULL, at BIGINT NOT NULL,
    PRIMARY KEY (token_sha256), UNIQUE (endpoint_sha256),
    FOREIGN KEY (token_sha256) REFERENCES sessions (token_sha256) ON DELETE CASCADE
);
CREATE INDEX push_devices_of_person ON push_devices (corp_id, user_id);
CREATE TABLE day_calls (
    corp_id {key} NOT NULL, purpose {key} NOT NULL, day {key} NOT NULL, calls INTEGER NOT NULL,
    PRIMARY KEY (corp_id, purpose, day)
);
CREATE TABLE start_lists (
    corp_id {key} NOT NULL, app_type {key} NOT NULL, due_at BIGINT NOT NULL, data {data},
    PRIMARY KEY (corp_id, app_type)
);
CREATE TABLE assistants (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, client {key} NOT NULL, used_at BIGINT NOT NULL,
    refused_before BIGINT NOT NULL, PRIMARY KEY (corp_id, user_id, client)
);
CREATE INDEX assistants_of_corp ON assistants (corp_id, client, used_at);
CREATE TABLE proposals (
    proposal_id {key} NOT NULL, corp_id {key} NOT NULL, user_id {key} NOT NULL, client {key} NOT NULL,
    instance_id {key} NOT NULL, task_id {key} NOT NULL, action {key} NOT NULL, remark TEXT NOT NULL,
    revision INTEGER NOT NULL, proposed_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, decision {key} NOT NULL,
    action_id {key} NOT NULL, detail {key} NOT NULL, PRIMARY KEY (proposal_id)
);
CREATE INDEX ix_proposals_proposed_at ON proposals (proposed_at);
CREATE INDEX proposals_of_person ON proposals (corp_id, user_id, proposed_at)
"""


def upgrade() -> None:
    for each in _CHANGES.format_map(_TYPES[op.get_bind().dialect.name]).split(";"):
        op.execute(each)
