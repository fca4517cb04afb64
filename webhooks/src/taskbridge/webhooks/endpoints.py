"""The endpoints: a TOML file that is reloaded when it changes. A broken new version is reported, and the old one stays.

Secrets are in the file, in files that it names, or in the environment; no message repeats them.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from taskbridge.runtime.settings import FileBroken, FileModel, NotBlank, ReloadedFile, parse_toml
from taskbridge.runtime.standard_webhooks import key_of
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import Change, View  # noqa: TC001 - pydantic reads them
from taskbridge.webhooks.formats import format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.schemas.events import TaskNotification
    from taskbridge.webhooks.formats.base import Format

Names = Annotated[frozenset[NotBlank], Field(min_length=1)]
_ENVIRONMENT = "env:"
_MAX_ENDPOINTS = 200


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise ValueError("must be https://host/path, without user, password or fragment")
    return text


def _upper_case(values: object) -> object:
    if not isinstance(values, list):
        return values
    return [each.upper() if isinstance(each, str) else each for each in cast("list[object]", values)]


E = TypeVar("E")
AnyCase = Annotated[frozenset[E], BeforeValidator(_upper_case)]
"""Words of a list. Records and answers have them in lower case."""

HttpUrl = Annotated[str, Field(max_length=2000), AfterValidator(_http_url)]


class EndpointEntry(FileModel):
    """One endpoint of the file. The reference has the text of each field."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Names it in commands, logs and metrics. A new name is a new endpoint."""
    url: HttpUrl
    """Where notifications are posted."""
    secrets: Annotated[tuple[SecretStr, ...], Field(max_length=4)] = ()
    """Secrets of Standard Webhooks, `whsec_…`; several while one is rotated. `env:NAME` and `file:PATH` name where one
    is."""
    corps: Names
    """Corps whose notifications it gets."""
    views: AnyCase[View] | None = None
    """Only these lists: `PENDING`, `HANDLED`, `CREATED`, `COPIED`, in either case."""
    changes: AnyCase[Change] | None = None
    """Only these changes: `ADDED`, `UPDATED`, `REMOVED`, in either case."""
    apps: Names | None = None
    """Only tasks of these apps."""
    sources: Names | None = None
    """Only tasks of these sources, such as `yida`."""
    people: Names | None = None
    """Only notifications to these user ids."""
    format: NotBlank = "notification"
    """What is sent: `notification`, `template`, `flat-todo`, or a format of an extension, such as `dingtalk-todo` and
    `feishu-approval`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the format."""
    start: Literal["now", "present"] = "now"
    """`present`: first every entry that is in a list when the endpoint is added."""
    collapse: bool = False
    """Whether a change that was never tried is replaced by the next change of the same entry."""
    in_flight: Annotated[int, Field(ge=1, le=100)] = 10
    """Maximum number of requests at once."""
    requests_per_s: Annotated[float, Field(gt=0)] | None = None
    """Maximum rate of requests."""
    ca_file: Path | None = None
    """Certificates (PEM) that may sign the receiver's, in place of the system's."""
    certificate_file: Path | None = None
    """Client certificate and key (PEM)."""

    @model_validator(mode="after")
    def _is_complete(self) -> EndpointEntry:
        if self.format in ("notification", "template") and not self.secrets:
            raise ValueError("secrets is required")
        return self


class _File(FileModel):
    endpoints: Annotated[tuple[EndpointEntry, ...], Field(max_length=_MAX_ENDPOINTS)] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint with its secrets, its TLS settings and the options of its format."""

    entry: EndpointEntry
    keys: tuple[bytes, ...] = field(repr=False)
    format: Format
    options: Any = field(repr=False)
    tls: ssl.SSLContext = field(repr=False, compare=False)
    certificates: tuple[bytes, ...] = field(repr=False)
    """The contents of the files that ``tls`` was read from: a renewed certificate is a changed endpoint."""

    @property
    def name(self) -> str:
        return self.entry.name

    def wants(self, notification: TaskNotification) -> bool:
        entry = self.entry
        return (
            notification.corp_id in entry.corps
            and (entry.views is None or notification.view in entry.views)
            and (entry.changes is None or notification.change in entry.changes)
            and (entry.apps is None or notification.app_type in entry.apps)
            and (entry.sources is None or notification.source in entry.sources)
            and (entry.people is None or notification.recipient_id in entry.people)
        )


_Certificates = tuple[Path | None, Path | None, tuple[bytes, ...]]
"""The names of the files of an endpoint, and their contents."""


class Endpoints(NamedTuple):
    """Those of one version of the file, by name."""

    by_name: dict[str, Endpoint]

    @property
    def count(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride] - NamedTuple's own counts values
        return len(self.by_name)


class EndpointsFile(ReloadedFile[Endpoints]):
    title = "endpoints file"
    log_events = "endpoints_reloaded", "endpoints_broken"

    def __init__(self, path: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._contexts: dict[_Certificates, ssl.SSLContext] = {}
        super().__init__(path)

    def parse(self, text: str) -> Endpoints:
        found: dict[str, Endpoint] = {}
        self._known, self._contexts = self._contexts, {}
        for at, entry in enumerate(parse_toml(text, _File).endpoints):
            place = f"endpoints.{at}"
            if entry.name in found:
                raise FileBroken(f"{place}.name: occurs twice")
            found[entry.name] = self._complete(entry, place)
        return Endpoints(found)

    def _complete(self, entry: EndpointEntry, place: str) -> Endpoint:
        keys = tuple(_checked(f"{place}.secrets", self._key, each) for each in entry.secrets)
        tls, certificates = _checked(f"{place}.ca_file, certificate_file", self._tls, entry)
        format_ = _checked(f"{place}.format", format_of, entry.format)
        options = _checked(f"{place}.options", format_.options, entry.options, self._secret)
        return Endpoint(entry, keys, format_, options, tls, certificates)

    def _key(self, secret: SecretStr) -> bytes:
        return key_of(self._secret(secret.get_secret_value()))

    def _secret(self, text: str) -> str:
        if text.startswith(_ENVIRONMENT):
            name = text.removeprefix(_ENVIRONMENT)
            if name not in self._environment:
                raise FileBroken(f"{name} is not in the environment")
            return self._environment[name].strip()
        return self.secret_of(text)

    def _tls(self, entry: EndpointEntry) -> tuple[ssl.SSLContext, tuple[bytes, ...]]:
        """One context for all endpoints with the same certificates: each has the system's, which take long to load."""
        files = [each and self.path.parent / each for each in (entry.ca_file, entry.certificate_file)]
        certificates = tuple(self.bytes_of(each) for each in files if each is not None)
        key = entry.ca_file, entry.certificate_file, certificates
        if key not in self._contexts:
            self._contexts[key] = self._known.get(key) or _context(*files)
        return self._contexts[key], certificates


def _context(ca_file: Path | None, certificate_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate_file is not None:
        try:
            context.load_cert_chain(certificate_file, password="")  # without one, an encrypted key asks the terminal
        except ssl.SSLError:
            raise ValueError("certificate_file must have a certificate and its unencrypted key (PEM)") from None
    return context


def _checked(place: str, function: Callable[..., Any], *arguments: object) -> Any:
    try:
        return function(*arguments)
    except (ConfigurationError, ValueError, OSError) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileBroken(f"{place}: {problem}") from None
