"""The tables of webhooks, the same in SQLite and PostgreSQL. Times are milliseconds since the epoch, UTC."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from taskbridge.runtime.database import Key

metadata = MetaData()


class Outcome(IntEnum):
    """What has become of a delivery."""

    WAITING = 0
    DELIVERED = 1
    GIVEN_UP = 2
    REPLACED = 3
    """A later change of the same entry was sent in its place: before any attempt, or after it was given up."""


endpoints = Table(
    "endpoints",
    metadata,
    Column("name", Key, primary_key=True),
    Column("added_at", BigInteger, nullable=False),
    # Why it gets nothing; null while it is enabled.
    Column("disabled", Text),
    Column("disabled_at", BigInteger),
    # The first failure since the last success; null after a success.
    Column("failing_since", BigInteger),
    # Whether every entry that was in a list when it was added is waiting, or was sent.
    Column("has_present", Boolean, nullable=False),
)

queues = Table(
    "queues",
    metadata,
    Column("endpoint", Key, primary_key=True),
    Column("entry", Key, primary_key=True),
    # When the first waiting delivery is due.
    Column("next_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    # The name of the claim of who delivers it now, and until when nobody else may.
    Column("claim", Key, nullable=False),
    Column("claimed_until", BigInteger, nullable=False),
    Index("queues_due", "endpoint", "next_at"),
)
"""One row for each list entry with something waiting: its lock keeps the entry's changes in order."""

_HAS_FAILED = text("problem IS NOT NULL")

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("endpoint", Key, nullable=False),
    Column("entry", Key, nullable=False),
    # The notification's id: stable over attempts and restarts.
    Column("webhook_id", Key, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    # The notification and its headers, as JSON.
    Column("data", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("attempted_at", BigInteger),
    Column("status", Integer),
    # Of the last failure: what went wrong, and the beginning of the answer.
    Column("problem", Text),
    UniqueConstraint("endpoint", "webhook_id"),
    Index("deliveries_of_entry", "endpoint", "entry", "outcome", "id"),
    Index("deliveries_latest", "endpoint", "outcome", "at"),
    Index("deliveries_failed", "endpoint", "attempted_at", sqlite_where=_HAS_FAILED, postgresql_where=_HAS_FAILED),
)

people = Table(
    "people",
    metadata,
    Column("corp_id", Key, primary_key=True),
    Column("user_id", Key, primary_key=True),
    # Of the record: rows of people who were erased go when it is read again from its beginning.
    Column("partition", Integer, nullable=False),
    # ``other_ids`` of the person, as JSON.
    Column("other_ids", LargeBinary, nullable=False),
)
