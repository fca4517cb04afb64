"""The tables of the first release.

It has the number of the last revision before that release, which led to the same tables. The tables of today may have
changed since: a revision says what was, and takes nothing from ``tables``.
"""

from __future__ import annotations

import secrets

from alembic import op
from sqlalchemy import column, insert, table

revision = "0008"
down_revision = None

_TYPES = {
    "sqlite": {"key": "VARCHAR", "data": "BLOB", "serial": "INTEGER"},
    "postgresql": {"key": 'VARCHAR COLLATE "C"', "data": "BYTEA", "serial": "BIGSERIAL"},
}
_TABLES = """
CREATE TABLE about (
    name {key} NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name)
);
CREATE TABLE positions (
    topic {key} NOT NULL, partition INTEGER NOT NULL, topic_id {key} NOT NULL, next_offset BIGINT NOT NULL,
    fill_end BIGINT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (topic, partition)
);
CREATE TABLE skipped (
    topic {key} NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL, "key" TEXT NOT NULL,
    reason TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (topic, partition, "offset")
);
CREATE TABLE actions (
    action_id {key} NOT NULL, corp_id {key} NOT NULL, user_id {key} NOT NULL, actor_id {key} NOT NULL,
    instance_id {key} NOT NULL, task_id {key} NOT NULL, source {key} NOT NULL, app_type {key} NOT NULL,
    action {key} NOT NULL, recipient_id {key} NOT NULL, remark TEXT NOT NULL, status {key} NOT NULL,
    detail TEXT NOT NULL, attempts INTEGER NOT NULL, requested_at BIGINT NOT NULL, due_at BIGINT,
    PRIMARY KEY (action_id)
);
CREATE INDEX actions_of_actor ON actions (corp_id, actor_id, requested_at);
CREATE INDEX actions_of_person ON actions (corp_id, user_id, requested_at);
CREATE UNIQUE INDEX actions_under_way ON actions (corp_id, user_id, instance_id, task_id) WHERE due_at IS NOT NULL;
CREATE INDEX ix_actions_due_at ON actions (due_at);
CREATE TABLE audit (
    seq BIGINT NOT NULL, at BIGINT NOT NULL, corp_id {key} NOT NULL, actor {key} NOT NULL, action {key} NOT NULL,
    subject TEXT NOT NULL, address {key} NOT NULL, session {key} NOT NULL, sha256 {key} NOT NULL, PRIMARY KEY (seq)
);
CREATE INDEX audit_at ON audit (at, seq);
CREATE INDEX audit_of_action ON audit (action, at, seq);
CREATE INDEX audit_of_actor ON audit (actor, at, seq);
CREATE INDEX audit_of_subject ON audit (subject, at, seq);
CREATE TABLE change_counters (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, last_seq BIGINT NOT NULL, PRIMARY KEY (corp_id, user_id)
);
CREATE TABLE changes (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, seq BIGINT NOT NULL, at BIGINT NOT NULL,
    instance_id {key} NOT NULL, unnamed_originator {key}, data {data} NOT NULL, PRIMARY KEY (corp_id, user_id, seq)
);
CREATE INDEX ix_changes_at ON changes (at);
CREATE TABLE delegations (
    delegation_id {key} NOT NULL, corp_id {key} NOT NULL, user_id {key} NOT NULL, delegate_id {key} NOT NULL,
    app_type {key} NOT NULL, process_name TEXT NOT NULL, starts_at BIGINT NOT NULL, ends_at BIGINT NOT NULL,
    PRIMARY KEY (delegation_id)
);
CREATE INDEX delegations_of_person ON delegations (corp_id, user_id);
CREATE INDEX delegations_to_person ON delegations (corp_id, delegate_id, ends_at);
CREATE TABLE entries (
    instance BIGINT NOT NULL, number INTEGER NOT NULL, corp_id {key} NOT NULL, user_id {key} NOT NULL,
    "view" SMALLINT NOT NULL, entered_at BIGINT NOT NULL, instance_id {key} NOT NULL, task_id {key} NOT NULL,
    app_type {key} NOT NULL, source {key} NOT NULL, process_name TEXT, due_at BIGINT, unnamed_originator {key},
    search TEXT NOT NULL, item {data} NOT NULL, PRIMARY KEY (instance, number)
);
CREATE INDEX entries_age ON entries (entered_at, instance, number) WHERE "view" = 2;
CREATE INDEX entries_due ON entries (due_at, instance, number) WHERE "view" = 2 AND due_at IS NOT NULL;
CREATE INDEX entries_page ON entries (
    corp_id, user_id, "view", entered_at DESC, instance_id, task_id, search, unnamed_originator, instance, number);
CREATE INDEX entries_waiting ON entries (
    corp_id, user_id, app_type, process_name, entered_at, due_at, "view") WHERE "view" = 2;
CREATE TABLE events (
    instance_id {key} NOT NULL, event_id {key} NOT NULL, corp_id {key} NOT NULL, action {key} NOT NULL,
    occurred_at BIGINT NOT NULL, received_at BIGINT NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL,
    data {data} NOT NULL, PRIMARY KEY (instance_id, event_id)
);
CREATE INDEX events_flow ON events (received_at, action);
CREATE TABLE forms (
    corp_id {key} NOT NULL, form_uuid {key} NOT NULL, partition INTEGER NOT NULL, title TEXT,
    labels {data} NOT NULL, PRIMARY KEY (corp_id, form_uuid)
);
CREATE TABLE instances (
    id {serial} NOT NULL, instance_id {key} NOT NULL, partition INTEGER NOT NULL, corp_id {key} NOT NULL,
    state {data} NOT NULL, PRIMARY KEY (id), UNIQUE (instance_id)
);
CREATE TABLE marks (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, "view" SMALLINT NOT NULL, kind {key} NOT NULL,
    instance_id {key} NOT NULL, task_id {key} NOT NULL, value BIGINT NOT NULL,
    PRIMARY KEY (corp_id, user_id, "view", kind, instance_id, task_id)
);
CREATE TABLE people (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, partition INTEGER NOT NULL, name TEXT, department TEXT,
    search TEXT NOT NULL, PRIMARY KEY (corp_id, user_id)
);
CREATE TABLE preferences (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, data {data} NOT NULL, PRIMARY KEY (corp_id, user_id)
);
CREATE TABLE pseudonyms (
    pseudonym {key} NOT NULL, corp_id {key} NOT NULL, user_id {key} NOT NULL, PRIMARY KEY (pseudonym)
);
CREATE UNIQUE INDEX pseudonyms_of_person ON pseudonyms (corp_id, user_id);
CREATE TABLE reminders (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, instance_id {key} NOT NULL, task_id {key} NOT NULL,
    kind {key} NOT NULL, due_at BIGINT NOT NULL, channel {key} NOT NULL, attempts INTEGER NOT NULL,
    retry_at BIGINT NOT NULL, done_at BIGINT, problem TEXT,
    PRIMARY KEY (corp_id, user_id, instance_id, task_id, kind, due_at, channel)
);
CREATE INDEX ix_reminders_due_at ON reminders (due_at);
CREATE INDEX reminders_open ON reminders (channel, corp_id, user_id, retry_at) WHERE done_at IS NULL;
CREATE TABLE replicas (
    replica {key} NOT NULL, at BIGINT NOT NULL, share {data} NOT NULL, PRIMARY KEY (replica)
);
CREATE TABLE sessions (
    token_sha256 {key} NOT NULL, corp_id {key} NOT NULL, user_id {key} NOT NULL, roles TEXT NOT NULL,
    created_at BIGINT NOT NULL, used_at BIGINT NOT NULL, PRIMARY KEY (token_sha256)
);
CREATE INDEX sessions_of_person ON sessions (corp_id, user_id);
CREATE TABLE set_aside (
    kind {key} NOT NULL, entry_id {key} NOT NULL, at BIGINT NOT NULL, reason {key} NOT NULL, search TEXT NOT NULL,
    summary {data} NOT NULL, replayed_at TEXT, PRIMARY KEY (kind, entry_id)
);
CREATE INDEX set_aside_counts ON set_aside (kind, reason, replayed_at);
CREATE INDEX set_aside_latest ON set_aside (kind, at);
CREATE TABLE sign_ins (
    state_sha256 {key} NOT NULL, browser_sha256 {key} NOT NULL, nonce {key} NOT NULL, code_verifier {key} NOT NULL,
    return_to TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (state_sha256)
);
CREATE TABLE person_ids (
    corp_id {key} NOT NULL, kind {key} NOT NULL, value {key} NOT NULL, user_id {key} NOT NULL,
    PRIMARY KEY (corp_id, kind, value, user_id),
    FOREIGN KEY (corp_id, user_id) REFERENCES people (corp_id, user_id) ON DELETE CASCADE
);
CREATE INDEX person_ids_of_user ON person_ids (corp_id, user_id)
"""


def upgrade() -> None:
    for each in _TABLES.format_map(_TYPES[op.get_bind().dialect.name]).split(";"):
        op.execute(each)
    about = table("about", column("name"), column("value"))
    op.execute(insert(about).values(name="epoch", value=secrets.token_hex(8)))
