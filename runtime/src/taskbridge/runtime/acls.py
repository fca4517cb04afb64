"""What a Kafka user may do: asked of Kafka, and said in words where it is not enough."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation

from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from taskbridge.runtime.kafka import Admin

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Create", "Delete", "Alter", "Describe", "DescribeConfigs"]

SEE = "'taskbridge topics acls' lists what each user needs"

_ANSWER_S = 10.0
_ALLOWED = {"include_authorized_operations": True}
_REFUSALS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    # A user that may write to no topic at all gets this one.
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
_ASKED: Mapping[str, AclOperation] = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
}
"""What work needs. Whether it may create topics or read their settings shows when it tries to."""


class NotAllowed(OperatorError):
    """Kafka does not allow this user what is needed."""


class Acl(NamedTuple):
    """One permission. With Read, Write, Delete or Alter comes Describe."""

    operation: Operation
    resource: Resource
    name: str
    why: str
    prefixed: bool = False
    """Whether it is for everything whose name begins so."""

    def covers(self, resource: Resource, name: str) -> bool:
        return self.resource == resource and (name.startswith(self.name) if self.prefixed else name == self.name)

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}{'*' if self.prefixed else ''}"


def is_refusal(error: KafkaError) -> bool:
    """Whether Kafka does not allow it."""
    return error.code() in _REFUSALS


def not_allowed(*needed: Acl | str) -> str:
    """One line: what this user lacks."""
    told = [f"{each} ({each.why})" if isinstance(each, Acl) else each for each in needed]
    return f"this Kafka user lacks {', '.join(told)}: {SEE}"


def lacking(admin: Admin, wanted: Sequence[Acl], *, topics: Collection[str]) -> list[Acl]:
    """Which of these Kafka does not grant, as far as it tells: for these topics, and the groups that are named. Blocks.

    What cannot be told, because Kafka is too old or does not answer, counts as granted: whoever tries it will see.
    """
    groups = [acl.name for acl in wanted if acl.resource == "group"]
    granted = {**dict(_of_topics(admin, topics)), **dict(_of_groups(admin, groups))}
    return [
        acl
        for acl in wanted
        if acl.operation in _ASKED
        and any(
            acl.covers(resource, name) and _ASKED[acl.operation] not in operations
            for (resource, name), operations in granted.items()
        )
    ]


_Granted = tuple[tuple[Resource, str], "Collection[AclOperation]"]


def _of_topics(admin: Admin, names: Collection[str]) -> Iterator[_Granted]:
    asked = TopicCollection(list(names))
    yield from _granted("topic", cast("Any", admin).describe_topics(asked, request_timeout=_ANSWER_S, **_ALLOWED))


def _of_groups(admin: Admin, names: Collection[str]) -> Iterator[_Granted]:
    yield from _granted("group", admin.described_groups(names, _ANSWER_S, **_ALLOWED))


def _granted(resource: Resource, asked: Mapping[str, Any]) -> Iterator[_Granted]:
    for name, answer in asked.items():
        with suppress(TimeoutError):
            try:
                operations = answer.result(_ANSWER_S).authorized_operations
            except KafkaException as error:
                if is_refusal(error.args[0]):
                    yield (resource, name), ()
            else:
                # One that may be looked at has Describe at least: nothing at all means that Kafka does not tell.
                if operations:
                    yield (resource, name), operations
