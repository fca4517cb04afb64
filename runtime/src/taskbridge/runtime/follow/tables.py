"""The tables of a service that follows topics: how far each partition was read, and what could not be read."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text

from taskbridge.runtime.database import Key

metadata = MetaData()

EPOCH = "epoch"
"""In ``about``: 16 random hexadecimal digits, new whenever lists are dropped; event ids of another are of no use."""

positions = Table(
    "positions",
    metadata,
    Column("topic", Key, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    # Kafka's id of the topic: in a recreated one, offsets begin again.
    Column("topic_id", Key, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    # The rows of the partition are complete once ``next_offset`` has reached this end, seen when the filling began.
    Column("fill_end", BigInteger, nullable=False),
    # When ``next_offset`` was last known to be current: a tombstone may be gone from Kafka a day later.
    Column("at", BigInteger, nullable=False),
)

about = Table("about", metadata, Column("name", Key, primary_key=True), Column("value", Text, nullable=False))

skipped = Table(
    "skipped",
    metadata,
    Column("topic", Key, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)
"""Records that could not be read: the rows that they are about stay as they were."""
