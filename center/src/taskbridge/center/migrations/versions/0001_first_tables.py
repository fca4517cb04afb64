"""The first tables."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_KEY = sa.String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")


def _key(name: str, *, primary_key: bool = False, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, _KEY, primary_key=primary_key, nullable=nullable)


def _number(name: str, *, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=primary_key, autoincrement=False, nullable=False)


def _partition(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column("partition", sa.Integer, primary_key=primary_key, autoincrement=False, nullable=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def upgrade() -> None:
    op.create_table(
        "positions",
        _key("topic", primary_key=True),
        _partition(primary_key=True),
        _key("topic_id"),
        _number("next_offset"),
        _number("fill_end"),
        _number("at"),
    )
    about = op.create_table("about", _key("name", primary_key=True), _text("value"))
    op.bulk_insert(about, [{"name": "epoch", "value": secrets.token_hex(8)}])
    op.create_table(
        "instances",
        _key("instance_id", primary_key=True),
        _partition(),
        _key("corp_id"),
        _bytes("state"),
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        _key("corp_id"),
        _key("user_id"),
        sa.Column("view", sa.SmallInteger, nullable=False),
        _number("entered_at"),
        _key("instance_id"),
        _key("task_id"),
        _key("app_type"),
        _key("source"),
        _text("process_name", nullable=True),
        _key("unnamed_originator", nullable=True),
        _text("search"),
        _bytes("item"),
        sa.UniqueConstraint("instance_id", "view", "user_id", "task_id"),
    )
    place = ["corp_id", "user_id", "view", sa.text("entered_at DESC"), "instance_id", "task_id"]
    op.create_index("entries_page", "entries", [*place, "search", "unnamed_originator"])
    op.create_table(
        "change_counters", _key("corp_id", primary_key=True), _key("user_id", primary_key=True), _number("last_seq")
    )
    op.create_table(
        "changes",
        _key("corp_id", primary_key=True),
        _key("user_id", primary_key=True),
        _number("seq", primary_key=True),
        _number("at"),
        _key("instance_id"),
        _bytes("data"),
    )
    op.create_index("ix_changes_at", "changes", ["at"])
    op.create_table(
        "events",
        _key("instance_id", primary_key=True),
        _key("event_id", primary_key=True),
        _key("corp_id"),
        _key("action"),
        _number("occurred_at"),
        _number("received_at"),
        _partition(),
        _number("offset"),
        _bytes("data"),
    )
    op.create_index("events_flow", "events", ["received_at", "action"])
    op.create_table(
        "people",
        _key("corp_id", primary_key=True),
        _key("user_id", primary_key=True),
        _partition(),
        _text("name", nullable=True),
        _text("department", nullable=True),
        _text("search"),
    )
    op.create_table(
        "person_ids",
        _key("corp_id", primary_key=True),
        _key("kind", primary_key=True),
        _key("value", primary_key=True),
        _key("user_id", primary_key=True),
        sa.ForeignKeyConstraint(["corp_id", "user_id"], ["people.corp_id", "people.user_id"], ondelete="CASCADE"),
    )
    op.create_index("person_ids_of_user", "person_ids", ["corp_id", "user_id"])
    op.create_table(
        "forms",
        _key("corp_id", primary_key=True),
        _key("form_uuid", primary_key=True),
        _partition(),
        _text("title", nullable=True),
        _bytes("labels"),
    )
    op.create_table(
        "set_aside",
        _key("kind", primary_key=True),
        _key("entry_id", primary_key=True),
        _number("at"),
        _key("reason"),
        _text("search"),
        _bytes("summary"),
        _text("replayed_at", nullable=True),
    )
    op.create_index("set_aside_latest", "set_aside", ["kind", "at"])
    op.create_index("set_aside_counts", "set_aside", ["kind", "reason", "replayed_at"])
    op.create_table(
        "skipped",
        _key("topic", primary_key=True),
        _partition(primary_key=True),
        _number("offset", primary_key=True),
        _text("key"),
        _text("reason"),
        _number("at"),
    )
    op.create_table("replicas", _key("replica", primary_key=True), _number("at"), _bytes("share"))
