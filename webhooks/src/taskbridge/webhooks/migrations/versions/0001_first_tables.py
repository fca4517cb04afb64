"""The tables of the first release, written out: those of today have changed since."""

from __future__ import annotations

from alembic import op

revision = "0001"
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
CREATE TABLE deliveries (
    id {serial} NOT NULL, endpoint {key} NOT NULL, entry {key} NOT NULL, webhook_id {key} NOT NULL, at BIGINT NOT NULL,
    outcome SMALLINT NOT NULL, data {data} NOT NULL, attempts INTEGER NOT NULL, attempted_at BIGINT, status INTEGER,
    problem TEXT, PRIMARY KEY (id), UNIQUE (endpoint, webhook_id)
);
CREATE INDEX deliveries_failed ON deliveries (endpoint, attempted_at) WHERE problem IS NOT NULL;
CREATE INDEX deliveries_latest ON deliveries (endpoint, outcome, at);
CREATE INDEX deliveries_of_entry ON deliveries (endpoint, entry, outcome, id);
CREATE TABLE endpoints (
    name {key} NOT NULL, added_at BIGINT NOT NULL, disabled TEXT, disabled_at BIGINT, failing_since BIGINT,
    has_present BOOLEAN NOT NULL, PRIMARY KEY (name)
);
CREATE TABLE people (
    corp_id {key} NOT NULL, user_id {key} NOT NULL, other_ids {data} NOT NULL, PRIMARY KEY (corp_id, user_id)
);
CREATE TABLE queues (
    endpoint {key} NOT NULL, entry {key} NOT NULL, next_at BIGINT NOT NULL, attempts INTEGER NOT NULL,
    claim {key} NOT NULL, claimed_until BIGINT NOT NULL, PRIMARY KEY (endpoint, entry)
);
CREATE INDEX queues_due ON queues (endpoint, next_at)
"""


def upgrade() -> None:
    for each in _TABLES.format_map(_TYPES[op.get_bind().dialect.name]).split(";"):
        op.execute(each)
