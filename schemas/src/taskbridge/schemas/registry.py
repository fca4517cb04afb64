"""The schema registry: registers our schemas under the contract's rules, and remembers their ids on disk.

A service that restarts while the registry is away goes on with the ids it saw last: an id never changes its schema.
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
from taskbridge.schemas.errors import ConfigurationError, OperatorError, RecordError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from taskbridge.schemas.registry_client import RegistryClient
    from taskbridge.schemas.topics import Topic

COMPATIBILITY = "FULL_TRANSITIVE"

PROPERTY_PREFIX = "schema.registry."
"""So the registry's among a Kafka client's properties begin, as Confluent's own clients have it."""

_log = logging.getLogger(__name__)


class RegistryUnavailable(OperatorError):
    """The schema registry does not answer as one, and the schema asked for was never seen before."""


class SchemaRefused(ConfigurationError):
    """The registry does not take our schema; its message says why."""


class UnknownSchema(RecordError):
    """The registry has no schema of the id that a record names."""

    dlq_reason = DlqReason.UNDECODABLE


def schema_text(record: str) -> str:
    """The current Avro schema of a record, as it stands in ``schemas/avro``."""
    return files("taskbridge.schemas").joinpath("avro", f"{record}.avsc").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class SchemaRef:
    """A schema as the registry knows it: what was encoded by it can be framed later, by another version of us too."""

    subject: str
    text: str

    @staticmethod
    def of(topic: Topic) -> SchemaRef:
        assert topic.record is not None
        return SchemaRef(topic.subject, schema_text(topic.record))

    @property
    def key(self) -> str:
        """The same for the same subject and text, for ever: a changed schema never goes out under another one's id."""
        canonical = json.dumps(json.loads(self.text), sort_keys=True)
        return f"{self.subject}#{hashlib.sha256(canonical.encode()).hexdigest()}"


class Registry:
    """Answers for our own schemas from memory once their ids are known, and asks the registry for all else.

    Every schema that was registered through this object or is in ``ids_path`` is known.
    """

    def __init__(
        self, url: str, *, ids_path: Path | None = None, properties: Mapping[str, object] | None = None
    ) -> None:
        """``properties``: of a Kafka client; what begins with ``schema.registry.`` is for here (TLS, passwords)."""
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
        """Our schemas by their ids."""
        for topic in topics.ALL:
            if topic.record is not None:
                schema = SchemaRef.of(topic)
                if (known := self.known_id(schema)) is not None:
                    self._remember(schema, known)

    @cached_property
    def client(self) -> RegistryClient:
        """Only where something is to be asked: what it imports takes a quarter of a service's start."""
        from taskbridge.schemas.registry_client import RegistryClient  # noqa: PLC0415

        return RegistryClient(self._url, self._properties)

    def knows(self, wanted: Iterable[Topic]) -> bool:
        """Whether records of all these topics can be encoded without asking the registry."""
        return all(topic.record is None or SchemaRef.of(topic).key in self._ids for topic in wanted)

    def register(self, wanted: Iterable[Topic]) -> dict[str, int]:
        """Register the schema of each topic and set its compatibility; returns subject → id. Safe to repeat.

        Where the ids cannot be written down they are known all the same: see ``save``.

        Raises:
            RegistryUnavailable: no answer.
            SchemaRefused: the registry finds a schema invalid or incompatible with an earlier version.
        """
        registered: dict[str, int] = {}
        for topic in wanted:
            if topic.record is not None:
                schema = SchemaRef.of(topic)
                known = self.client.register(schema.subject, schema.text, compatibility=COMPATIBILITY)
                self._remember(schema, known)
                registered[schema.subject] = known
        self.save()
        return registered

    def save(self) -> str | None:
        """Write the ids down, for a start without the registry; returns why that is not possible now, if so."""
        problem = _write(self._ids_path, self._ids)
        if problem is not None and self._problem is None:
            _log.error("schema_ids_not_written path=%s problem=%s", self._ids_path, problem)
        self._problem = problem
        return problem

    def known_id(self, schema: SchemaRef) -> int | None:
        """The id of a schema, where it can be told without asking the registry."""
        return self._ids.get(schema.key)

    def learn_id(self, schema: SchemaRef) -> int:
        """The id of a schema, registered where it is not yet; it may be an earlier version of one of ours.

        Raises:
            RegistryUnavailable: not known yet, and no answer.
            SchemaRefused: the registry does not take it.
        """
        known = self.known_id(schema)
        if known is None:
            known = self.client.register(schema.subject, schema.text)
            self._remember(schema, known)
            self.save()
        return known

    def id_of(self, schema: SchemaRef) -> int:
        """The id of a schema that is registered.

        Raises:
            RegistryUnavailable: not known yet, and no answer.
            SchemaRefused: the registry does not have it.
        """
        known = self.known_id(schema)
        return self.client.look_up(schema.subject, schema.text) if known is None else known

    def text_of(self, schema_id: int) -> str:
        """The schema by which a record was written.

        Raises:
            RegistryUnavailable: not seen before, and no answer.
            UnknownSchema: the registry has none of this id.
        """
        own = self._own.get(schema_id)
        return self.client.text_of(schema_id) if own is None else own

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def _remember(self, schema: SchemaRef, schema_id: int) -> None:
        self._ids[schema.key] = schema_id
        self._own[schema_id] = schema.text

    def answers(self) -> bool:
        """Whether the registry answers a request now."""
        try:
            self.client.ask()
        except TaskbridgeError:
            return False
        return True


def _read(path: Path | None) -> dict[str, int]:
    """The ids that were written down; none where they cannot be read."""
    try:
        return {str(key): int(value) for key, value in json.loads(path.read_text()).items()} if path else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _write(path: Path | None, ids: dict[str, int]) -> str | None:
    """Why they could not be written, if so: a full disk must not keep those from being used that are known."""
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
