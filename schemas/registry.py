"""The schema registry: registers our schemas under the contract's rules, and remembers their ids on disk.

A service that restarts while the registry is away goes on with the ids it saw last: an id never changes its schema.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from confluent_kafka.schema_registry import (
    RegisteredSchema,
    Schema,
    SchemaRegistryClient,
    SchemaRegistryError,
)

from schemas import schema_ids, topics
from schemas.errors import ConfigurationError, OperatorError, RecordError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from schemas.topics import Topic

COMPATIBILITY = "FULL_TRANSITIVE"

_REQUEST_TIMEOUT_S = 5
_CONFLICT_ATTEMPTS = 10
_NOT_FOUND = 404
_CONFLICT = 409
_SERVER_ERRORS = 500
_API_NOT_FOUND = range(40400, 40500)
"""Error codes of a registry that looked and found nothing: any other 404 comes from something that is none."""

_log = logging.getLogger(__name__)


class RegistryUnavailable(OperatorError):
    """The schema registry does not answer as one, and the schema asked for was never seen before."""


class SchemaRefused(ConfigurationError):
    """The registry does not take our schema; its message says why."""


class UnknownSchema(RecordError):
    """The registry has no schema of the id that a record names."""


def schema_text(record: str) -> str:
    """The current Avro schema of a record, as it stands in ``schemas/avro``."""
    return files("schemas").joinpath("avro", f"{record}.avsc").read_text("utf-8")


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
        """The same for the same subject and text, for ever."""
        return schema_ids.key_of(self.subject, self.text)


class Registry(SchemaRegistryClient):
    """Confluent's client, which answers for our own schemas from memory once their ids are known.

    The Avro serializer asks ``lookup_schema`` and the deserializer ``get_schema``; both are answered without a request
    for every schema that was registered through this object or is in ``ids_path``.
    """

    def __init__(self, url: str, *, ids_path: Path | None = None) -> None:
        super().__init__({"url": url, "timeout": _REQUEST_TIMEOUT_S, "max.retries": 1, "retries.wait.ms": 200})
        self._url = url
        self._ids_path = ids_path
        self._problem: str | None = None
        self._ids: dict[str, int] = schema_ids.read(ids_path)
        self._own: dict[int, Schema] = {}
        """Our schemas by their ids: the deserializer asks for one with every record."""
        for topic in topics.ALL:
            if topic.record is not None:
                schema = SchemaRef.of(topic)
                if (known := self.known_id(schema)) is not None:
                    self._remember(schema.subject, schema.text, known)

    def knows(self, wanted: Iterable[Topic]) -> bool:
        """Whether records of all these topics can be encoded without asking the registry."""
        return all(
            topic.record is None or schema_ids.key_of(topic.subject, schema_text(topic.record)) in self._ids
            for topic in wanted
        )

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
                text = schema_text(topic.record)
                registered[topic.subject] = self._until_no_conflict(topic.subject, Schema(text, "AVRO"))
                self._remember(topic.subject, text, registered[topic.subject])
        self.save()
        return registered

    def save(self) -> str | None:
        """Write the ids down, for a start without the registry; returns why that is not possible now, if so."""
        problem = schema_ids.write(self._ids_path, self._ids)
        if problem is not None and self._problem is None:
            _log.error("schema ids not written to %s: %s", self._ids_path, problem)
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
            with _registry_errors(self._url, SchemaRefused):
                known = self.register_schema(schema.subject, Schema(schema.text, "AVRO"))
            self._remember(schema.subject, schema.text, known)
            self.save()
        return known

    def lookup_schema(
        self,
        subject_name: str,
        schema: Schema,
        normalize_schemas: bool = False,  # noqa: FBT001, FBT002 - the overridden signature
        fmt: str | None = None,
        deleted: bool = False,  # noqa: FBT001, FBT002 - the overridden signature
    ) -> RegisteredSchema:
        known = self._ids.get(schema_ids.key_of(subject_name, schema.schema_str or ""))
        if known is not None:
            return RegisteredSchema(subject=subject_name, version=None, schema_id=known, guid=None, schema=schema)
        with _registry_errors(self._url, SchemaRefused):
            return super().lookup_schema(subject_name, schema, normalize_schemas, fmt, deleted)

    def get_schema(
        self,
        schema_id: int,
        subject_name: str | None = None,
        fmt: str | None = None,
        reference_format: str | None = None,
    ) -> Schema:
        own = self._own.get(schema_id)
        if own is not None:
            return own
        with _registry_errors(self._url, UnknownSchema):
            return super().get_schema(schema_id, subject_name, fmt, reference_format)

    def _remember(self, subject: str, text: str, schema_id: int) -> None:
        self._ids[schema_ids.key_of(subject, text)] = schema_id
        self._own[schema_id] = Schema(text, "AVRO")

    def _until_no_conflict(self, subject: str, schema: Schema) -> int:
        # Two services that set the compatibility of one subject at the same moment get a 409 from Apicurio.
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                with _registry_errors(self._url, SchemaRefused):
                    schema_id = self.register_schema(subject, schema)
                    self.set_compatibility(subject, COMPATIBILITY)
                    return schema_id
            except SchemaRefused as refused:
                cause = refused.__cause__
                conflict = isinstance(cause, SchemaRegistryError) and cause.http_status_code == _CONFLICT
                if not conflict or "ncompatib" in str(cause) or attempt == _CONFLICT_ATTEMPTS - 1:
                    raise
                time.sleep(0.05 * (attempt + 1))
        raise AssertionError("unreachable")

    def answers(self) -> bool:
        """Whether the registry answers a request now."""
        try:
            with _registry_errors(self._url, SchemaRefused):
                self.get_subjects()
        except TaskbridgeError:
            return False
        return True


@contextmanager
def _registry_errors(url: str, refusal: type[TaskbridgeError]) -> Generator[None]:
    """Maps what the client raises to our errors: what a registry refuses to ``refusal``, else to RegistryUnavailable.

    A schema is unknown only where a registry says so: records must not be parked because of a mistyped URL, or of a
    password that has expired.
    """
    try:
        yield
    except SchemaRegistryError as error:
        status, said = error.http_status_code, error.error_message or f"HTTP {error.http_status_code}"
        if status >= _SERVER_ERRORS:
            raise RegistryUnavailable(f"the schema registry at {url} failed: {said}") from error
        if status == _NOT_FOUND and error.error_code not in _API_NOT_FOUND:
            raise RegistryUnavailable(
                f"there is no schema registry at {url} (HTTP {status}): check the URL, it ends in the path of the"
                " registry's Confluent API, with Apicurio in /apis/ccompat/v7"
            ) from error
        if refusal is UnknownSchema and status != _NOT_FOUND:
            raise RegistryUnavailable(f"the schema registry at {url} refused to answer: {said}") from error
        raise refusal(f"the schema registry at {url} refused: {said}") from error
    except Exception as error:
        # The client lets its HTTP library's errors through, and which library that is has changed between its versions.
        raise RegistryUnavailable(f"the schema registry at {url} does not answer: {error}") from error
