"""Internal topics that only earlier releases used: found, and deleted on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.offsets import readers_of
from taskbridge.streams.rebuild.operation import delete_topics
from taskbridge.streams.table_versions import UNUSED_TOPICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.runtime.kafka import Admin

_ANSWER_S = 15


class StillUsed(OperatorError):
    """Workers of an earlier release run: without the topic they could not start again."""


def unused_topics(admin: Admin) -> list[str]:
    """The names of those that exist. Blocks.

    Raises:
        KafkaException: Kafka does not answer.
    """
    there = admin.list_topics(timeout=_ANSWER_S).topics
    return [name for name in UNUSED_TOPICS if name in there]


def delete_unused_topics(admin: Admin, names: Sequence[str]) -> None:
    """Delete these topics. Blocks.

    Raises:
        StillUsed: nothing was deleted.
        KafkaException, TimeoutError: Kafka does not answer, or denies access.
    """
    for name in names:
        if readers := readers_of(admin, APP_ID, name):
            raise StillUsed(f"{name} is used by workers of an earlier release: {', '.join(readers)}. Stop them first")
    if names:
        delete_topics(admin, [*names])
