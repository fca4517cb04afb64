"""A service's settings: from the environment, and from TOML files that are reloaded when they change."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import tomllib
from abc import ABC, abstractmethod
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Protocol, TypeVar

import structlog
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taskbridge.schemas.errors import ConfigurationError, TaskbridgeError
from taskbridge.schemas.events import SOURCE_TASKBRIDGE, SOURCE_YIDA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic_core import ErrorDetails


class _Entries(Protocol):
    @property
    def count(self) -> int: ...


S = TypeVar("S", bound=BaseModel)
P = TypeVar("P", bound="ProcessSettings")
T = TypeVar("T", bound=_Entries)

_log = structlog.stdlib.get_logger(__name__)

_FILE = "file:"
_MISSING, _UNKNOWN = "missing", "extra_forbidden"
POLL_S = 1.0
"""How often the service checks whether a file has changed."""

# From the environment.


def _or_none(value: Any) -> Any:
    return value or None


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


Network = IPv4Network | IPv6Network
_MAPPED_BITS = 96


def parse_network(text: str) -> Network:
    """The network that a CIDR names; one of IPv4-mapped IPv6 addresses is the IPv4 network. Raises ValueError."""
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError("one of the networks is not a CIDR without host bits, such as 10.0.0.0/8") from error
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _networks(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(parse_network(each.strip()) for each in value.split(",")) if value else ()


Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)]
Port = Annotated[int, Field(ge=0, le=65_535)]
FileOrNone = Annotated[Path | None, BeforeValidator(_or_none)]
TextOrNone = Annotated[str | None, BeforeValidator(_or_none)]
Url = Annotated[str, Field(pattern="^https?://.")]
UrlOrNone = Annotated[Url | None, BeforeValidator(_or_none)]


class ProcessSettings(BaseSettings):
    """Each field is an environment variable: the service's prefix, and its name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    unknown: ClassVar[str] = "no such setting"
    """What is said of a name that no field has."""

    host: str = "127.0.0.1"
    """Address on which health and metrics are served."""
    log_format: Literal["text", "json"] = "text"
    """`text`, or `json` for one object per line."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`. `DEBUG` also logs each accepted callback and each call of DingTalk."""


class ServiceSettings(ProcessSettings):
    """Of a service with Kafka and the registry."""

    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)]
    """Addresses of Kafka brokers: `host:port`, comma-separated."""
    schema_registry_url: Url
    """URL of the schema registry's Confluent API."""
    kafka_config_file: FileOrNone = None
    """File with further properties of all Kafka clients (TLS, SASL): one librdkafka `name=value` per line. Those of the
    registry begin with `schema.registry.`."""


class DatabaseSettings(ServiceSettings):
    """Of a service with a database."""

    database_url: SecretStr | None = None
    """`postgresql://user:password@host/database` for several replicas. Default: a SQLite file in the data folder."""
    data_dir: Path
    """Folder of the SQLite database and of cached schema ids."""


# Kubernetes adds variables for each Service of the namespace, such as EDGE_PORT=tcp://10.0.0.1:8400 for "edge".
_OF_SERVICES = re.compile(r"\w*(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT_\d+_(TCP|UDP|SCTP)|PORT=(tcp|udp|sctp)://)")


def load_settings(settings_class: type[P], environment: Mapping[str, str]) -> P:
    """The settings in this environment.

    ConfigurationError names each variable that is missing, wrong or unknown, without its value.
    """
    try:
        return settings_class.model_validate(given_settings(settings_class, environment))
    except ValidationError as error:
        problems = (_problem_of(settings_class, each) for each in error.errors())
        raise ConfigurationError("; ".join(problems)) from error


def given_settings(settings_class: type[ProcessSettings], environment: Mapping[str, str]) -> dict[str, str]:
    prefix = _prefix_of(settings_class)
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in environment.items()
        if name.startswith(prefix) and not _OF_SERVICES.match(f"{name}={value}")
    }


def wrong_settings(settings_class: type[ProcessSettings], environment: Mapping[str, str]) -> list[str]:
    """What is wrong with the settings that the environment has; others may be missing."""
    try:
        settings_class.model_validate(given_settings(settings_class, environment))
    except ValidationError as error:
        return [_problem_of(settings_class, each) for each in error.errors() if each["type"] != _MISSING]
    return []


def _problem_of(settings_class: type[ProcessSettings], error: ErrorDetails) -> str:
    prefix, name, says = _prefix_of(settings_class), str(error["loc"][0]), error["msg"]
    if error["type"] == _MISSING:
        says = "is required"
    elif (why := REMOVED.get(f"{prefix}{name.upper()}")) is not None:
        return f"{prefix}{name.upper()} is no longer a setting: {why}. Remove it"
    elif error["type"] == _UNKNOWN:
        near = get_close_matches(name, settings_class.model_fields, n=1)
        says = "".join([settings_class.unknown, *(f" (nearest: {prefix}{each.upper()})" for each in near)])
    return f"{prefix}{name.upper()}: {says}"


REMOVED = {
    "CENTER_DINGTALK_CORP_ID": "set CENTER_CORP_ID in place of it",
    "CENTER_DINGTALK_LOGIN_URL": "CENTER_DINGTALK_API_URL sets it too",
    "CENTER_DINGTALK_OLD_API_URL": "CENTER_DINGTALK_API_URL sets it too",
    "CENTER_EVENT_STREAMS_PER_USER": "one person has at most 32 streams of a replica",
    "CENTER_OIDC_CORP_ID": "set CENTER_CORP_ID in place of it",
    "CENTER_OIDC_MAPPED_ID": "set CENTER_MAPPED_ID in place of it",
    "CENTER_SSO_CORP_ID": "set CENTER_CORP_ID in place of it",
    "CENTER_SSO_MAPPED_ID": "set CENTER_MAPPED_ID in place of it",
    "CENTER_SSO_STREAM_S": "streams of people whom a proxy names end after 300 s",
    "EDGE_HEADER_TIMEOUT_S": "headers have 10 s",
    "EDGE_MAX_CONNECTIONS_PER_ADDRESS": "limit them in the proxy or firewall",
    "EDGE_MAX_HEADER_BYTES": "headers have at most 16 KiB",
    "EDGE_MAX_URL_BYTES": "a URL has at most 65,535 bytes",
    "EDGE_QUARANTINE_MAX_PER_MINUTE": "600 rejected callbacks of one sender are stored per minute",
    "RECONCILE_CALLS_PER_SECOND": "reconcile makes at most 10 calls a second for a corp",
    "RECONCILE_CALL_ATTEMPTS": "a call has at most 5 attempts",
    "RECONCILE_CALL_TIMEOUT_S": "a call takes at most 20 s",
    "RECONCILE_EDITION": "set RECONCILE_CALLS_PER_MONTH in place of it, to 100000 for the professional edition",
    "RECONCILE_IDS_PER_PASS": "a pass reads at most 200 instances of an app by id",
    "RECONCILE_RECORDS_PER_SECOND": "at most 50 events a second are published",
    "STREAMS_RESTORE_BUFFER_BYTES": "it is 64 MiB",
    "STREAMS_WATCHDOG_S": "a worker that makes no progress for 120 s exits",
}
"""Settings of earlier releases, and what replaced each: named for one release in the error of a start."""


def _prefix_of(settings_class: type[ProcessSettings]) -> str:
    return settings_class.model_config.get("env_prefix", "")


def run_program(service: str, run: Callable[[], None], *, does: str, needs: str = "", name: str = "") -> None:
    """Be the program ``taskbridge-SERVICE``, or ``name``: answer ``--help`` without any setting, or run the service.

    ``needs`` are settings of the example besides Kafka and the registry. An error is one line, and exit code 1.
    """
    from argparse import ArgumentParser  # noqa: PLC0415 - services that are commands of the program have no use for it

    prefix, name = service.upper(), name or f"taskbridge-{service}"
    ArgumentParser(
        prog=name,
        description=f"{does}, with an existing Kafka and registry, configured by {prefix}_* in the environment."
        " Every setting: docs/reference/settings.md.",
        epilog=f"Example: {needs}{prefix}_KAFKA_BOOTSTRAP_SERVERS=kafka:9092"
        f" {prefix}_SCHEMA_REGISTRY_URL=http://registry:8081 {name}",
    ).parse_args()
    try:
        run()
    except TaskbridgeError as error:
        sys.exit(f"taskbridge {service}: {error}")


# From files.


class FileBroken(ConfigurationError):
    """The file cannot be used. The message is one line that names the place and contains no secret."""


def parse_toml(text: str, model: type[S]) -> S:
    """The contents of a TOML text as ``model``, which hides its input in errors. Raises FileBroken."""
    try:
        return model.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FileBroken(f"not TOML: {error}") from error
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, each['loc']))}: {'no such key' if each['type'] == _UNKNOWN else each['msg']}"
            for each in error.errors()
        )
        raise FileBroken("; ".join(problems)) from None


class ReloadedFile(ABC, Generic[T]):
    """The newest valid contents of a file, and of the files that it names. An invalid change is not used."""

    title: ClassVar[str]
    log_events: ClassVar[tuple[str, str]]
    """Logged when a new version is in use, and when it is invalid."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises FileBroken."""
        self.path = path
        self.is_in_force = False
        self.broken: str | None = None
        """Why the newest version of the file is not in use; None when it is."""
        self.current: T = self._read()
        self.is_in_force = True

    @abstractmethod
    def parse(self, text: str) -> T:
        """The contents of the file. Raises FileBroken."""

    def text_of(self, path: Path) -> str:
        """The text of this file or of one that it names; raises as ``bytes_of``."""
        try:
            return self.bytes_of(path).decode()
        except UnicodeDecodeError as error:
            raise FileBroken("not UTF-8") from error

    def secret_of(self, text: str) -> str:
        """A secret in the file, which may be ``file:PATH`` to name where it is; raises as ``bytes_of``."""
        name = text.removeprefix(_FILE)
        return text if name == text else self.text_of(self.path.parent / name).strip()

    def bytes_of(self, path: Path) -> bytes:
        """The contents of this file or of one that it names; a change of any reloads all. Raises FileBroken."""
        # Before it is read: if it changes in between, it is read once more.
        self._versions[path] = _version_of(path)
        try:
            return path.read_bytes()
        except OSError as error:
            raise FileBroken(f"{error.strerror}") from error

    @property
    def problem(self) -> str | None:
        """Why the last change is not in use, for readiness and the terminal of ``up``; None when it is."""
        return None if self.broken is None else f"the last change is invalid and not in use: {self.broken}"

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self.reload_if_changed)

    def reload_if_changed(self) -> None:
        """Use a new version; an invalid one is logged, and the old one stays in use."""
        if not self.refresh():
            return
        reloaded, broken = self.log_events
        if self.broken is None:
            _log.info(reloaded, in_force=self.current.count)
        else:
            _log.error(broken, problem=self.broken, in_force=self.current.count)

    def refresh(self) -> bool:
        """As ``reload_if_changed`` without a log; returns whether there was a new version."""
        if all(_version_of(path) == version for path, version in self._versions.items()):
            return False
        try:
            self.current, self.broken = self._read(), None
        except FileBroken as error:
            self.broken = str(error)
        return True

    def _read(self) -> T:
        self._versions: dict[Path, tuple[int, ...] | None] = {}
        try:
            return self.parse(self.text_of(self.path))
        except FileBroken as error:
            raise FileBroken(f"{self.title} {self.path}: {error}") from error


def _version_of(path: Path) -> tuple[int, ...] | None:
    """Differs after every write, replacement or change of permissions; None where the file cannot be accessed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


# The credentials file, by which the edge verifies callbacks, and others call DingTalk and the other systems.


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _file_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not all(name.strip() and "\0" not in name for name in names):
        raise ValueError("must name at least one file, and no empty name")
    return names


def _not_ours(name: str) -> str:
    if name in (SOURCE_YIDA, SOURCE_TASKBRIDGE):
        raise ValueError("is reserved")
    return name


def _tokens(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    # With an empty token anybody could sign.
    if not tokens or not all(token.get_secret_value().strip() for token in tokens):
        raise ValueError("must have at least one token, and no empty token")
    return tokens


NotBlank = Annotated[str, AfterValidator(_not_blank)]
Secrets = Annotated[tuple[SecretStr, ...], AfterValidator(_tokens)]
FileNames = Annotated[tuple[str, ...], AfterValidator(_file_names)]


class FileModel(BaseModel):
    """A part of a file: no other keys are allowed, and no error shows a value, which may be a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class AppEntry(FileModel):
    """One app of the file. Its first token is in use; the others are being introduced or retired."""

    app_type: NotBlank
    corp_id: NotBlank | None = None
    system_tokens: Secrets | None = None
    system_token_files: FileNames | None = None

    @model_validator(mode="after")
    def _has_tokens(self) -> AppEntry:
        if self.system_tokens is None and self.system_token_files is None:
            raise ValueError("system_tokens or system_token_files is required")
        return self


class SourceEntry(FileModel):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), AfterValidator(_not_ours)]
    corp_id: NotBlank
    format: Literal["cloudevents", "flowable", "camunda", "todo"] = "cloudevents"
    secrets: Secrets | None = None
    secret_files: FileNames | None = None
    bearer_tokens: Secrets | None = None
    bearer_token_files: FileNames | None = None
    action_url: Annotated[str, Field(pattern=r"^https?://[^/]")] | None = None
    """Where the task center sends what people decide, signed with the first secret."""

    @model_validator(mode="after")
    def _has_secrets(self) -> SourceEntry:
        signs = self.secrets or self.secret_files
        if not (signs or self.bearer_tokens or self.bearer_token_files):
            raise ValueError("secrets, secret_files, bearer_tokens or bearer_token_files is required")
        if self.action_url is not None and not signs:
            raise ValueError("action_url requires secrets or secret_files")
        return self


class Senders(FileModel):
    apps: tuple[AppEntry, ...] = ()
    sources: tuple[SourceEntry, ...] = ()


def parse_senders(text: str) -> Senders:
    file = parse_toml(text, Senders)
    apps, sources = file.apps, file.sources
    if len({(app.app_type, app.corp_id) for app in apps}) < len(apps):
        raise FileBroken("apps: an app_type occurs twice with the same corp_id")
    if len({source.name for source in sources}) < len(sources):
        raise FileBroken("sources: a name occurs twice")
    if len({each.corp_id for each in (*apps, *sources)} - {None}) > 1:
        unsaid = next((at for at, app in enumerate(apps) if app.corp_id is None), None)
        if unsaid is not None:
            # The owner of its token could sign for any of them.
            problem = f"apps.{unsaid}: corp_id is required, because the file has apps of several corps"
            raise FileBroken(problem)
    return file


def fingerprint(app_type: str, system_token: str) -> str:
    """Eight hex digits that name a token of an app and never change."""
    named = f"taskbridge token fingerprint\0{app_type}\0{system_token}"
    return hashlib.sha256(named.encode()).hexdigest()[:8]


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text of an error or an answer without these secrets: others repeat what they were sent."""
    for each in secrets:
        text = text.replace(each, "…")
    return text
