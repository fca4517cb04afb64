"""Assistants are known by person and client, and propose decisions."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"

_KEY = {"sqlite": "VARCHAR", "postgresql": 'VARCHAR COLLATE "C"'}
_STATEMENTS = """
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
CREATE INDEX proposals_of_person ON proposals (corp_id, user_id, proposed_at);
"""


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    for each in _STATEMENTS.format(key=_KEY[dialect]).split(";"):
        if each.strip():
            op.execute(each)
