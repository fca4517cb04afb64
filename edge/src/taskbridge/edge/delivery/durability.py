"""The two places that keep an event when its callback is answered."""

from __future__ import annotations

from enum import StrEnum


class Durability(StrEnum):
    """What keeps an event when its callback is answered."""

    KAFKA = "kafka"
    """All in-sync replicas have acknowledged it."""
    SPOOL = "spool"
    """It is fsynced on our own disk, and goes to Kafka as soon as that is possible."""
