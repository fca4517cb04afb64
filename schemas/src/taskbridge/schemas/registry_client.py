"""Confluent's client of a schema registry, with our errors. Imported at the first request, because that is slow."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

from taskbridge.schemas.errors import ConfigurationError, TaskbridgeError
from taskbridge.schemas.registry import PROPERTY_PREFIX, RegistryUnavailable, SchemaRefused, UnknownSchema

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping


_REQUEST_TIMEOUT_S = 5
_CONFLICT_ATTEMPTS = 10
_NOT_LET_IN = (401, 403)
_NOT_FOUND = 404
_CONFLICT = 409
_SERVER_ERRORS = 500
_API_NOT_FOUND = range(40400, 40500)
"""Error codes of a registry that has no such schema. Any other 404 is not from a registry."""


class RegistryClient(SchemaRegistryClient):
    """Every method blocks, and raises RegistryUnavailable if no registry answers."""

    def __init__(self, url: str, properties: Mapping[str, object]) -> None:
        """Opens no connection; raises ConfigurationError if Confluent's client rejects these properties."""
        fixed = {"url": url, "timeout": _REQUEST_TIMEOUT_S, "max.retries": 1, "retries.wait.ms": 200}
        # Without TLS there is no certificate to check: to read the authorities would take 50 ms of CPU time.
        unchecked = {} if "https:" in url.lower() else {"ssl.ca.location": False}
        try:
            super().__init__({**fixed, **unchecked, **properties})
        except (ValueError, TypeError, OSError) as error:
            raise ConfigurationError(f"properties {PROPERTY_PREFIX}…: {error}") from error
        # A URL may contain a password, which must not be in any error.
        self._url = re.sub(r"//[^/@]*@", "//", url)

    def register(self, subject: str, text: str, *, compatibility: str | None = None) -> int:
        """Register a schema, and set the compatibility of its subject if one is given. Return the schema's id.

        Raises SchemaRefused if it is invalid, or incompatible with an earlier version.
        """
        # Two services that set the compatibility of one subject at the same moment get a 409 from Apicurio.
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                with _registry_errors(self._url, SchemaRefused):
                    schema_id = self.register_schema(subject, Schema(text, "AVRO"))
                    if compatibility is not None:
                        self.set_compatibility(subject, compatibility)
                    return schema_id
            except SchemaRefused as refused:
                cause = refused.__cause__
                conflict = isinstance(cause, SchemaRegistryError) and cause.http_status_code == _CONFLICT
                if not conflict or "ncompatib" in str(cause) or attempt == _CONFLICT_ATTEMPTS - 1:
                    raise
                time.sleep(0.05 * (attempt + 1))
        raise AssertionError("unreachable")

    def look_up(self, subject: str, text: str) -> int:
        """The id of a registered schema; raises SchemaRefused if the registry does not have it."""
        with _registry_errors(self._url, SchemaRefused):
            found = self.lookup_schema(subject, Schema(text, "AVRO")).schema_id
            assert found is not None
            return found

    def text_of(self, schema_id: int) -> str:
        """The schema with this id; raises UnknownSchema if there is none."""
        with _registry_errors(self._url, UnknownSchema):
            return self.get_schema(schema_id).schema_str or "null"


@contextmanager
def _registry_errors(url: str, refusal: type[TaskbridgeError]) -> Generator[None]:
    """Map a refusal by a registry to ``refusal``, and every other error of the client to RegistryUnavailable.

    A schema is unknown only if a registry says so. A mistyped URL or an expired password must not make dead letters.
    """
    try:
        yield
    except SchemaRegistryError as error:
        status, message = error.http_status_code, error.error_message or f"HTTP {error.http_status_code}"
        if status >= _SERVER_ERRORS:
            raise RegistryUnavailable(f"the schema registry at {url} failed: {message}") from error
        if status == _NOT_FOUND and error.error_code not in _API_NOT_FOUND:
            raise RegistryUnavailable(
                f"there is no schema registry at {url} (HTTP {status}): check the URL, it ends in the path of the"
                " registry's Confluent API, with Apicurio in /apis/ccompat/v7"
            ) from error
        if status in _NOT_LET_IN:
            raise RegistryUnavailable(
                f"the schema registry at {url} does not let us in (HTTP {status}: {message}): check"
                f" {PROPERTY_PREFIX}basic.auth.user.info among the properties of the Kafka clients, and what it may do"
            ) from error
        if refusal is UnknownSchema and status != _NOT_FOUND:
            raise RegistryUnavailable(f"the schema registry at {url} refused to answer: {message}") from error
        raise refusal(f"the schema registry at {url} refused: {message}") from error
    except Exception as error:
        # The client does not catch the errors of its HTTP library, which differs between versions.
        raise RegistryUnavailable(f"the schema registry at {url} does not answer: {error}") from error
