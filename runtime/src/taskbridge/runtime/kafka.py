"""Kafka clients configured as the contract demands, and what librdkafka says where there is no answer."""

from __future__ import annotations

import logging
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.registry import PROPERTY_PREFIX
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from confluent_kafka import Consumer

PARTITIONER = "murmur2_random"
"""The Java client's hash, so that producers in Java and this one put a key on the same partition."""

_REQUEST_OVERHEAD_BYTES = 1 << 20
_LONGEST_REQUEST_S = 3600
"""As long as librdkafka lets a request take."""
_FIRST_PATIENCE_S = 0.5
COORDINATED_AGAIN_S = 0.2
"""After so long a group's coordinator that moves is asked again."""
_COORDINATOR_MOVES = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


def read_kafka_config(path: Path | None) -> dict[str, str]:
    """Extra properties of all clients, from a file of ``name=value`` lines; ``#`` starts a comment line.

    They are librdkafka's, and the registry client's, which begin with ``schema.registry.``.

    Raises:
        ConfigurationError: the file cannot be read, or a line has no ``=``.
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
    """What every client needs to reach the brokers; ``extra`` wins, as far as it is librdkafka's."""
    return {"bootstrap.servers": bootstrap_servers, "socket.keepalive.enable": True, **_brokers(extra)}


def producer_config(bootstrap_servers: str, extra: Mapping[str, str] | None = None) -> dict[str, object]:
    """A producer whose acknowledgement means: on all in-sync replicas, once, in order per key."""
    return {
        **client_config(bootstrap_servers),
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": PARTITIONER,
        # Every client reads it, and nothing is paid for it on either side: docs/adr/0030.
        "compression.type": "none",
        "linger.ms": 2,
        "message.max.bytes": MAX_MESSAGE_BYTES + _REQUEST_OVERHEAD_BYTES,
        "message.timeout.ms": 30_000,
        # A broker that comes back is found within a second, not after the default ten.
        "reconnect.backoff.max.ms": 1000,
        **_brokers(extra),
    }


def consumer_config(bootstrap_servers: str, group: str, extra: Mapping[str, str] | None = None) -> dict[str, object]:
    """A consumer that reads from the beginning, takes records of any size that the contract allows, commits nothing."""
    return {
        **client_config(bootstrap_servers),
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.message.max.bytes": MAX_MESSAGE_BYTES + _REQUEST_OVERHEAD_BYTES,
        "reconnect.backoff.max.ms": 1000,
        **_brokers(extra),
    }


def _brokers(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (extra or {}).items() if not name.startswith(PROPERTY_PREFIX)}


def coordinator_moves(error: BaseException | None) -> bool:
    """Whether a group's coordinator is another broker by now, or is only just made: it is worth asking again."""
    return isinstance(error, KafkaException) and error.args[0].code() in _COORDINATOR_MOVES


class Admin(AdminClient):
    """Knows whom it asks, for whoever has to tell that there was no answer."""

    def __init__(self, config: Mapping[str, object]) -> None:
        super().__init__(cast("dict[str, Any]", config), logger=LIBRDKAFKA)
        self.servers = str(config["bootstrap.servers"])
        self._config = config

    def described_groups(self, names: Collection[str], within_s: float, **asked: Any) -> dict[str, Future[Any]]:
        """What the coordinator of each group answers; a group that has no answer within the time is left out. Blocks.

        A coordinator that moves, or is only just made, is asked again; what it says last is told.

        librdkafka asks for the coordinator three times within a third of a second, and then no more until a broker
        comes or goes (pull request 3847), too early in a new cluster: there, Kafka makes the topic of positions only
        then. And the client of a request that has timed out must not live until the coordinator is found, or librdkafka
        ends the process (issue 4605). So each attempt is another client's, and its request may take as long as any.
        """
        found: dict[str, Future[Any]] = {}
        ends, patience_s = time.monotonic() + within_s, _FIRST_PATIENCE_S
        left = list(names)
        while left and (remains_s := ends - time.monotonic()) > 0:
            asking = AdminClient(cast("dict[str, Any]", self._config), logger=LIBRDKAFKA)
            described = cast("Any", asking).describe_consumer_groups(left, request_timeout=_LONGEST_REQUEST_S, **asked)
            answers = cast("dict[str, Future[Any]]", described)
            answered, _ = wait(answers.values(), min(patience_s, remains_s))
            found |= {name: answer for name, answer in answers.items() if answer.done()}
            left = [name for name in left if name not in found or coordinator_moves(found[name].exception())]
            patience_s *= 2
            if left and answered:
                time.sleep(COORDINATED_AGAIN_S)
        return found


def admin_client(bootstrap_servers: str, extra: Mapping[str, str] | None = None) -> Admin:
    return Admin(client_config(bootstrap_servers, extra))


class _LastSaid(logging.Handler):
    """Keeps librdkafka's last line: it writes why a broker cannot be reached into its log, and into no error."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        _, _, said = record.getMessage().rpartition("]: ")
        self.text = said.partition(" (after ")[0]


LIBRDKAFKA = logging.getLogger("librdkafka")
"""Every client of ours writes here. A service lets each kind of line through now and then; a command shows none."""
_last_said = _LastSaid()
LIBRDKAFKA.addHandler(_last_said)


def no_answer(client: AdminClient | Consumer, servers: str, error: KafkaException) -> str:
    """One line: whom the client could not reach, why, and what to do about it."""
    client.poll(0)  # only then does librdkafka hand its log over
    why = _last_said.text or error.args[0].str()
    return (
        f"Kafka at {servers} does not answer ({why}). Check that it runs, and the address:"
        " --bootstrap-servers, or the service's setting …_KAFKA_BOOTSTRAP_SERVERS"
    )
