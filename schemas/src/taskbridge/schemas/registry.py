"""The schema registry: register our schemas with the contract's compatibility, and store their ids on disk.

A service that restarts without the registry uses the stored ids. The schema of an id never changes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

from taskbridge.schemas import topics
from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.schemas.errors import ConfigurationError, OperatorError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from taskbridge.schemas.registry_client import RegistryClient
    from taskbridge.schemas.topics import Topic

COMPATIBILITY = "FULL_TRANSITIVE"

PROPERTY_PREFIX = "schema.registry."
"""The prefix of the registry's properties among those of a Kafka client, as in Confluent's own clients."""

_log = logging.getLogger(__name__)


class RegistryUnavailable(OperatorError):
    """No schema registry answers, and the requested schema is not known yet."""


class SchemaRefused(ConfigurationError):
    """The registry rejects our schema. The message has its reason."""


class UnknownSchema(RecordError):
    """The registry has no schema with the id that a record names."""

    dlq_reason = DlqReason.UNDECODABLE


def schema_text(record: str) -> str:
    """The current Avro schema of a record, from ``schemas/avro``."""
    return files("taskbridge.schemas").joinpath("avro", f"{record}.avsc").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class SchemaRef:
    """A schema in the registry. A body that was encoded by it can be framed later, also by a newer version of us."""

    subject: str
    text: str

    @staticmethod
    def of(topic: Topic) -> SchemaRef:
        assert topic.record is not None
        return SchemaRef(topic.subject, schema_text(topic.record))

    @property
    def key(self) -> str:
        """The identity of subject and text, so that a changed schema is never published under the id of another."""
        canonical = json.dumps(json.loads(self.text), sort_keys=True)
        return f"{self.subject}#{hashlib.sha256(canonical.encode()).hexdigest()}"


class Registry:
    """Answers for known schemas from memory, and requests all others from the registry.

    A schema is known once this object registered it, or if ``ids_path`` has its id.
    """

    def __init__(
        self, url: str, *, ids_path: Path | None = None, properties: Mapping[str, object] | None = None
    ) -> None:
        """``properties`` are those of a Kafka client. Only those with the prefix ``schema.registry.`` are used."""
        self._url = url
        self._properties = {
            name.removeprefix(PROPERTY_PREFIX): value
            for name, value in (properties or {}).items()
            if name.startswith(PROPERTY_PREFIX)
        }
        self._ids_path = ids_path
        self._problem: str | None = None
        self._ids: dict[str, int] = _read(ids_path)
        self._own: dict[int, str] = {}
        """Our schemas by id."""
        for topic in topics.ALL:
            if topic.record is not None:
                schema = SchemaRef.of(topic)
                if (known := self.known_id(schema)) is not None:
                    self._remember(schema, known)

    @cached_property
    def client(self) -> RegistryClient:
        """Made at the first request, because its import takes a quarter of the start of a service."""
        from taskbridge.schemas.registry_client import RegistryClient  # noqa: PLC0415

        return RegistryClient(self._url, self._properties)

    def knows(self, required: Iterable[Topic]) -> bool:
        """Whether records of all these topics can be encoded without a request."""
        return all(topic.record is None or SchemaRef.of(topic).key in self._ids for topic in required)

    def register(self, requested: Iterable[Topic]) -> dict[str, int]:
        """Register the schema of each topic and set its compatibility. Return subject → id. Safe to repeat.

        The ids are known even if they cannot be stored: see ``save``.

        Raises:
            RegistryUnavailable: The registry does not answer.
            SchemaRefused: A schema is invalid, or incompatible with an earlier version.
        """
        registered: dict[str, int] = {}
        for topic in requested:
            if topic.record is not None:
                schema = SchemaRef.of(topic)
                known = self.client.register(schema.subject, schema.text, compatibility=COMPATIBILITY)
                self._remember(schema, known)
                registered[schema.subject] = known
        self.save()
        return registered

    def save(self) -> str | None:
        """Store the ids, for a start without the registry. Return the problem, if there is one."""
        problem = _write(self._ids_path, self._ids)
        if problem is not None and self._problem is None:
            _log.error("schema_ids_not_written path=%s problem=%s", self._ids_path, problem)
        self._problem = problem
        return problem

    def known_id(self, schema: SchemaRef) -> int | None:
        """The id of a schema, if it is known without a request."""
        return self._ids.get(schema.key)

    def learn_id(self, schema: SchemaRef) -> int:
        """The id of a schema, registered first if necessary; raises as ``register``. It may be an earlier version."""
        known = self.known_id(schema)
        if known is None:
            known = self.client.register(schema.subject, schema.text)
            self._remember(schema, known)
            self.save()
        return known

    def id_of(self, schema: SchemaRef) -> int:
        """The id of a registered schema; raises SchemaRefused if the registry does not have it, and as ``register``."""
        known = self.known_id(schema)
        return self.client.look_up(schema.subject, schema.text) if known is None else known

    def text_of(self, schema_id: int) -> str:
        """The schema with this id; raises RegistryUnavailable, or UnknownSchema."""
        own = self._own.get(schema_id)
        return self.client.text_of(schema_id) if own is None else own

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def _remember(self, schema: SchemaRef, schema_id: int) -> None:
        self._ids[schema.key] = schema_id
        self._own[schema_id] = schema.text


def _read(path: Path | None) -> dict[str, int]:
    """The stored ids; none if they cannot be read."""
    try:
        return {str(key): int(value) for key, value in json.loads(path.read_text()).items()} if path else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _write(path: Path | None, ids: dict[str, int]) -> str | None:
    """Store the ids. Return the problem, if there is one: with a full disk, known ids must stay usable."""
    if path is None:
        return None
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(ids, indent=2, sort_keys=True))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        return error.strerror or str(error)
    return None
