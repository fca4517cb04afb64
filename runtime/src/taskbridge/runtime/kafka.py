"""Kafka clients configured as the contract demands: their settings, their permissions, and the causes of errors."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.registry import PROPERTY_PREFIX
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path


PARTITIONER = "murmur2_random"
"""The hash of the Java client: producers in Java and these put a key on the same partition."""

_REQUEST_OVERHEAD_BYTES = 1 << 20
_LONGEST_REQUEST_S = 3600
"""The longest request timeout that librdkafka accepts."""
_FIRST_ATTEMPT_S = 0.5
COORDINATOR_RETRY_S = 0.2
_COORDINATOR_MOVING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


def read_kafka_config(path: Path | None) -> dict[str, str]:
    """Further properties of all clients, from a file of ``name=value`` lines; ``#`` starts a comment line.

    They are librdkafka's, and the registry client's, which begin with ``schema.registry.``.
    """
    if path is None:
        return {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Kafka config file {path}: {error}") from error
    properties: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, separator, value = text.partition("=")
            if not separator or not name.strip():
                raise ConfigurationError(f"Kafka config file {path}, line {number}: expected name=value")
            properties[name.strip()] = value.strip()
    return properties


def client_config(bootstrap_servers: str, extra: Mapping[str, str] | None = None) -> dict[str, object]:
    """The settings of every client. Those in ``extra`` that are librdkafka's override the others."""
    return {"bootstrap.servers": bootstrap_servers, "socket.keepalive.enable": True, **_librdkafka_only(extra)}


def producer_config(bootstrap_servers: str, extra: Mapping[str, str] | None = None) -> dict[str, object]:
    """A producer whose acknowledgement means: on all in-sync replicas, once, in order of each key."""
    return {
        **client_config(bootstrap_servers),
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": PARTITIONER,
        # Every client can read it, and it costs no CPU time on either side: docs/adr/0030.
        "compression.type": "none",
        "linger.ms": 2,
        "message.max.bytes": MAX_MESSAGE_BYTES + _REQUEST_OVERHEAD_BYTES,
        "message.timeout.ms": 30_000,
        # The default would find a broker that returns after ten seconds only.
        "reconnect.backoff.max.ms": 1000,
        **_librdkafka_only(extra),
    }


def consumer_config(bootstrap_servers: str, group: str, extra: Mapping[str, str] | None = None) -> dict[str, object]:
    """A consumer that starts at the beginning, accepts records of any size in the contract, and commits nothing."""
    return {
        **client_config(bootstrap_servers),
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.message.max.bytes": MAX_MESSAGE_BYTES + _REQUEST_OVERHEAD_BYTES,
        "reconnect.backoff.max.ms": 1000,
        **_librdkafka_only(extra),
    }


def _librdkafka_only(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (extra or {}).items() if not name.startswith(PROPERTY_PREFIX)}


def is_coordinator_moving(error: BaseException | None) -> bool:
    """Whether the group's coordinator moves to another broker or starts: the request can be repeated."""
    return isinstance(error, KafkaException) and error.args[0].code() in _COORDINATOR_MOVING


class Admin(AdminClient):
    """An admin client that knows the addresses of its brokers, for error messages."""

    def __init__(self, config: Mapping[str, object]) -> None:
        super().__init__(cast("dict[str, Any]", config), logger=LIBRDKAFKA)
        self.servers = str(config["bootstrap.servers"])
        self._config = config

    def describe_groups(self, names: Collection[str], within_s: float, **options: Any) -> dict[str, Future[Any]]:
        """The answer of each group's coordinator; a group without an answer in time is left out. Blocks.

        While a coordinator moves or starts, the request is repeated; the last answer counts.

        librdkafka looks for the coordinator three times within a third of a second, and then no more until a broker
        comes or goes (pull request 3847). In a new cluster that is too early, because Kafka creates the topic of
        positions only then. A client must also not outlive a request that timed out while its coordinator is unknown,
        or librdkafka ends the process (issue 4605). So each attempt has its own client, without a request timeout.
        """
        found: dict[str, Future[Any]] = {}
        ends, attempt_s = time.monotonic() + within_s, _FIRST_ATTEMPT_S
        left = list(names)
        while left and (remains_s := ends - time.monotonic()) > 0:
            client = AdminClient(cast("dict[str, Any]", self._config), logger=LIBRDKAFKA)
            described = cast("Any", client).describe_consumer_groups(
                left, request_timeout=_LONGEST_REQUEST_S, **options
            )
            answers = cast("dict[str, Future[Any]]", described)
            answered, _ = wait(answers.values(), min(attempt_s, remains_s))
            found |= {name: answer for name, answer in answers.items() if answer.done()}
            left = [name for name in left if name not in found or is_coordinator_moving(found[name].exception())]
            attempt_s *= 2
            if left and answered:
                time.sleep(COORDINATOR_RETRY_S)
        return found


def admin_client(bootstrap_servers: str, extra: Mapping[str, str] | None = None) -> Admin:
    return Admin(client_config(bootstrap_servers, extra))


class _LastLine(logging.Handler):
    """Stores librdkafka's last log line: only its log says why a broker cannot be reached."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        _, _, line = record.getMessage().rpartition("]: ")
        self.text = line.partition(" (after ")[0]


LIBRDKAFKA = logging.getLogger("librdkafka")
"""The logger of every client. A service limits how often each kind of line appears; a command shows none."""
_last_line = _LastLine()
LIBRDKAFKA.addHandler(_last_line)


def no_answer(client: AdminClient | Consumer, servers: str, error: KafkaException) -> str:
    """One line: which brokers the client could not reach, why, and what to do."""
    client.poll(0)  # librdkafka hands over its log only then
    why = _last_line.text or error.args[0].str()
    return (
        f"Kafka at {servers} does not answer ({why}). Check that it runs, and the address:"
        " --bootstrap-servers, or the service's setting …_KAFKA_BOOTSTRAP_SERVERS"
    )


# Permissions.

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Create", "Delete", "Alter", "Describe", "DescribeConfigs"]

ACLS_HINT = "'taskbridge topics acls' lists what each user needs"

_DESCRIBE_S = 10.0
_WITH_OPERATIONS = {"include_authorized_operations": True}
_DENIALS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    # A user that may write to no topic at all gets this one.
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
_CHECKED: Mapping[str, AclOperation] = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
}
"""The operations that work needs. The others fail where they are tried: to create topics and to read their settings."""


class NotAllowed(OperatorError):
    """The Kafka user lacks a permission."""


class Acl(NamedTuple):
    """One permission. Read, Write, Delete and Alter include Describe."""

    operation: Operation
    resource: Resource
    name: str
    why: str
    prefixed: bool = False

    def covers(self, resource: Resource, name: str) -> bool:
        return self.resource == resource and (name.startswith(self.name) if self.prefixed else name == self.name)

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}{'*' if self.prefixed else ''}"


def is_denied(error: KafkaError) -> bool:
    return error.code() in _DENIALS


def not_allowed(*needed: Acl | str) -> str:
    named = [f"{each} ({each.why})" if isinstance(each, Acl) else each for each in needed]
    return f"this Kafka user lacks {', '.join(named)}: {ACLS_HINT}"


def missing_acls(admin: Admin, needed: Sequence[Acl], *, topics: Collection[str]) -> list[Acl]:
    """The permissions that Kafka does not grant, for these topics and for the groups in ``needed``. Blocks.

    A permission counts as granted while Kafka is too old to report it, or does not answer.
    """
    described = cast("Any", admin).describe_topics(
        TopicCollection(list(topics)), request_timeout=_DESCRIBE_S, **_WITH_OPERATIONS
    )
    granted = dict(_granted("topic", described))
    groups = [acl.name for acl in needed if acl.resource == "group"]
    granted |= _granted("group", admin.describe_groups(groups, _DESCRIBE_S, **_WITH_OPERATIONS))
    return [
        acl
        for acl in needed
        if acl.operation in _CHECKED
        and any(
            acl.covers(resource, name) and _CHECKED[acl.operation] not in operations
            for (resource, name), operations in granted.items()
        )
    ]


def _granted(
    resource: Resource, described: Mapping[str, Any]
) -> Iterator[tuple[tuple[Resource, str], Collection[AclOperation]]]:
    for name, answer in described.items():
        try:
            operations = answer.result().authorized_operations
        except KafkaException as error:
            if is_denied(error.args[0]):
                yield (resource, name), ()
        else:
            # Who may describe a resource has at least Describe: no operations at all means that Kafka reports none.
            if operations:
                yield (resource, name), operations
