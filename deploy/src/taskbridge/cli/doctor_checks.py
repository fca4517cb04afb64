"""The checks of ``taskbridge doctor``: settings, the machine, brokers, endpoints, clocks, and what services report."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from taskbridge.center.actions.systems import systems_of
from taskbridge.center.assistants.rules import RulesFile
from taskbridge.center.checks import check_settings
from taskbridge.center.reminders.file import RemindersFile
from taskbridge.center.settings import CenterSettings, settings_class
from taskbridge.cli.callbacks import Sender
from taskbridge.cli.connection import Connection, check_something_runs, find_connection
from taskbridge.cli.data_folder import data_folder
from taskbridge.cli.terminal import counted
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.dingtalk.apps import AppsFile
from taskbridge.edge.settings import EdgeSettings
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.runtime.inside_http import NO_ANSWER, bearer, inside_client
from taskbridge.runtime.kafka import read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.settings import (
    FileBroken,
    ProcessSettings,
    ServiceSettings,
    given_settings,
    load_settings,
    wrong_settings,
)
from taskbridge.runtime.tokens import TokensFile
from taskbridge.runtime.topic_admin import metadata
from taskbridge.schemas import topics
from taskbridge.schemas.errors import OperatorError, TaskbridgeError
from taskbridge.streams.settings import StreamsSettings
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.settings import WebhooksSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from taskbridge.edge.verification.credentials import Credentials
    from taskbridge.runtime.kafka import Admin

_TIMEOUT_S = 5
_LOOPBACK, _ALL_INTERFACES = "127.0.0.1", ("0.0.0.0", "::")  # noqa: S104 - only compared
_STATES_BYTES = 1 << 30
_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CORRECT = "correct the setting; docs/reference/settings.md lists all"
_VOLATILE = {"tmpfs", "ramfs"}
_SHARED = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"}
_SKEW_WARNING_S, _SKEW_S = 5, 60
_ENOUGH_BROKERS = 3
_UPDATE_WITHIN_S = 30
_DOCTOR = "taskbridge-doctor"
_CONNECT = "start what is missing; if the API requires a token for that corp, set TASKBRIDGE_API_TOKEN"


class State(StrEnum):
    """``FAILED``: it will not work, or data can be lost. ``WARNING``: it works, but is at risk."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """A stable name of the check, for programs."""
    state: State
    says: str
    do: str = ""
    """What to do; empty if the check passed."""


def ok(check: str, says: str) -> Finding:
    return Finding(check, State.OK, says)


def warning(check: str, says: str, do: str) -> Finding:
    return Finding(check, State.WARNING, says, do)


def failed(check: str, says: str, do: str) -> Finding:
    return Finding(check, State.FAILED, says, do)


def verdict(check: str, *, passed: bool, ok: str, otherwise: str, do: str, state: State = State.FAILED) -> Finding:
    return Finding(check, State.OK, ok) if passed else Finding(check, state, otherwise, do)


def found(check: str, look: Callable[[], Iterable[Finding]], do: str) -> Iterator[Finding]:
    """The findings of a check; an error that it raises becomes a finding too."""
    try:
        yield from look()
    except TaskbridgeError as error:
        yield failed(check, str(error), do)


_SERVICES: Mapping[str, type[EdgeSettings | StreamsSettings | CenterSettings | WebhooksSettings]] = {
    "edge": EdgeSettings,
    "streams": StreamsSettings,
    "center": settings_class(),
    "webhooks": WebhooksSettings,
}
_SETTINGS: Mapping[str, type[ProcessSettings]] = {
    **_SERVICES,
    "reconcile": ReconcileSettings,
    "dingtalk-approvals": ApprovalsSettings,
}


@dataclass(frozen=True)
class Examination:
    """The checks of one environment. A failed check skips only those that depend on it."""

    environment: Mapping[str, str]
    bootstrap_servers: str | None = None
    registry_url: str | None = None
    data_dir: Path | None = None
    credentials: Path | None = None
    urls: Mapping[str, str | None] = field(default_factory=dict[str, str | None])

    def findings(self, *, end_to_end: bool = False, api_token: str | None = None) -> Iterator[Finding]:
        configure_logs("text", "ERROR")
        alone = [name for name in _SERVICES if f"{name.upper()}_KAFKA_BOOTSTRAP_SERVERS" in self.environment]
        for name in alone:
            yield from found("settings", partial(self._service, name), _CORRECT)
        others = [kind for name, kind in _SETTINGS.items() if name not in alone]
        wrong = [problem for kind in others for problem in wrong_settings(kind, self.environment)]
        yield from (failed("settings", problem, _CORRECT) for problem in wrong)
        running = None if alone else data_folder(self.data_dir, self.environment).running()
        if not alone:
            yield from found("kafka", self._connection, "start it, or set --bootstrap-servers")
        urls = {name: self.urls.get(name) or getattr(running, f"{name}_url", None) for name in _SERVICES}
        for name, url in urls.items():
            if url is not None:
                yield from readiness(name, url)
            elif name in alone and (own := own_url(name, self.environment)) is not None:
                yield from readiness(name, own, missing=State.WARNING)
        edge, center = urls["edge"], urls["center"]
        if edge is not None:
            yield from clock(f"{edge.rstrip('/')}/healthz")
        if not end_to_end:
            return
        if edge is None or center is None:
            yield failed("end-to-end", "the addresses of the services are unknown", "set --edge-url and --center-url")
            return
        yield from found("end-to-end", partial(self._end_to_end, edge, center, api_token), _CONNECT)

    def settings(self) -> Iterator[Finding]:
        """The findings of the settings alone, and of the files that they name: no other service is needed."""
        given = [name for name, kind in _SETTINGS.items() if given_settings(kind, self.environment)]
        for name in given:
            yield from found("settings", partial(self._settings, name), _CORRECT)
        if not given:
            yield failed("settings", "no service has a setting in this environment", "set them as for the service")

    def _settings(self, name: str) -> Iterator[Finding]:
        yield from self._valid(name, load_settings(_SETTINGS[name], self.environment))

    def _valid(self, name: str, settings: ProcessSettings) -> Iterator[Finding]:
        if isinstance(settings, ServiceSettings):
            read_kafka_config(settings.kafka_config_file)
        if isinstance(settings, CenterSettings):
            with suppress(FileBroken):  # each file has a check of its own
                check_settings(settings)
        yield ok("settings", f"the settings of {name} are valid")
        if isinstance(settings, EdgeSettings):
            yield from found("credentials", partial(_credentials, settings.credentials_file), "correct the file")
        elif isinstance(settings, WebhooksSettings):
            read = partial(EndpointsFile, environment=self.environment)
            yield from _entries("endpoints", settings.endpoints_file, read, "endpoint", is_secret=True)
        elif isinstance(settings, CenterSettings):
            yield from found("decisions", partial(_decisions, settings), "correct the file")
            yield from _entries("reminders", settings.reminders_file, RemindersFile, "rule", " of due times")
            more = " of decisions without a confirmation"
            yield from _entries("assistants", settings.mcp_rules_file, RulesFile, "rule", more)
        elif isinstance(settings, ReconcileSettings):
            read = partial(AppsFile, credentials=settings.credentials_file)
            yield from _entries("apps", settings.apps_file, read, "app", is_secret=True)
        if isinstance(settings, CenterSettings | WebhooksSettings):
            yield from _entries("tokens", settings.api_tokens_file, TokensFile, "token")

    def _connection(self) -> Iterator[Finding]:
        connection = find_connection(
            self.bootstrap_servers, self.registry_url, self.environment, data_dir=self.data_dir
        )
        check_something_runs(connection)
        yield from self._brokers(connection)

    def _service(self, name: str) -> Iterator[Finding]:
        settings = load_settings(_SERVICES[name], self.environment)
        yield from self._valid(name, settings)
        if not isinstance(settings, CenterSettings | WebhooksSettings) or settings.database_url is None:
            needs_bytes = settings.spool_max_bytes if isinstance(settings, EdgeSettings) else _STATES_BYTES
            yield from folder(settings.data_dir, setting=f"{name.upper()}_DATA_DIR", needs_bytes=needs_bytes)
        properties = read_kafka_config(settings.kafka_config_file)
        yield from self._brokers(Connection(settings.kafka_bootstrap_servers, settings.schema_registry_url, properties))

    def _brokers(self, connection: Connection) -> Iterator[Finding]:
        do = "start it, or correct the address; TLS and SASL: docs/how-to/run-on-your-kafka.md"
        yield from found("kafka", partial(kafka, connection.admin()), do)
        yield from clock(connection.registry_url)

    def _end_to_end(self, edge: str, center: str, api_token: str | None) -> Iterator[Finding]:
        named = self.credentials or data_folder(self.data_dir, self.environment).credentials
        try:
            credentials = CredentialsFile(named).current
        except FileBroken as error:
            yield failed("end-to-end", str(error), "set --credentials to the credentials file of the edge")
            return
        bearer_token = self.environment.get("EDGE_BEARER_TOKENS", "").split(",")[0].strip()
        yield from end_to_end(edge, center, credentials, api_token, bearer_token)


def _credentials(path: Path) -> Iterator[Finding]:
    count = CredentialsFile(path).current.count
    yield verdict(
        "credentials",
        passed=count > 0,
        ok=f"{path} has {counted(count, 'app or source', 'apps and sources')}",
        otherwise=f"{path} has no apps, so every callback is rejected",
        do="add [[apps]] to the file",
    )
    yield from _is_private("credentials", path)


def _is_private(check: str, path: Path) -> Iterator[Finding]:
    file = path.stat()
    # Another owner's file is read by group: a Secret in a pod is root's, with the mode 0440 and the pod's group.
    too_many = _GROUP_AND_OTHERS if file.st_uid == os.geteuid() else stat.S_IRWXO
    if file.st_mode & too_many:
        yield warning(check, f"users other than its owner can read {path}", f"chmod 600 {path}")


def _entries(
    check: str, path: Path | None, read: Callable[[Path], Any], entry: str, more: str = "", *, is_secret: bool = False
) -> Iterator[Finding]:
    """How many entries the file has, if there is one."""

    def look(path: Path) -> Iterator[Finding]:
        yield ok(check, f"{path} has {counted(read(path).current.count, entry)}{more}")
        if is_secret:
            yield from _is_private(check, path)

    return iter(()) if path is None else found(check, partial(look, path), "correct the file")


def _decisions(settings: CenterSettings) -> Iterator[Finding]:
    systems = systems_of(settings)
    if not systems.files:
        return
    count = systems.count
    yield verdict(
        "decisions",
        passed=count > 0,
        ok=f"tasks of {counted(count, 'app or other system', 'apps and other systems')} can be decided",
        otherwise="no task can be decided: no app has credentials, and no source an action_url",
        do="add [[apps]] to CENTER_APPS_FILE, or an action_url to CENTER_CREDENTIALS_FILE",
        state=State.WARNING,
    )
    for each in systems.files:
        yield from _is_private("decisions", each.path)


def folder(path: Path, *, setting: str, needs_bytes: int) -> Iterator[Finding]:
    """Check that data is safe in this folder, and has room."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    kind = _filesystem(there)
    if kind in _VOLATILE:
        yield failed(
            "disk",
            f"{path} is in memory ({kind}): a restart of the machine deletes its contents",
            f"set {setting} to a disk",
        )
    elif kind in _SHARED:
        yield warning(
            "disk",
            f"{path} is on a shared file system ({kind}), whose locks and fsync may be unreliable",
            f"set {setting} to a local disk",
        )
    free = shutil.disk_usage(there).free
    yield verdict(
        "space",
        passed=free >= needs_bytes,
        ok=f"{path} has {free >> 20} MiB free",
        otherwise=f"{path} has {free >> 20} MiB free, but may need {needs_bytes >> 20} MiB",
        do=f"free space, or set {setting} to a larger disk",
    )
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        do = f"give this user write access, or change {setting}"
        yield failed("writable", f"cannot write to {path}: {error.strerror}", do)


def clock(url: str) -> Iterator[Finding]:
    """Compare this clock with that of the server at ``url``; skipped if it sends no date."""
    with suppress(*NO_ANSWER, ValueError, OverflowError), inside_client(timeout_s=_TIMEOUT_S) as client:
        date = client.get(url).headers.get("date", "")
        who, skew = urlsplit(url).netloc, abs(parsedate_to_datetime(date).timestamp() - time.time())
        rejects = ": signed messages are rejected as untimely" if skew > _SKEW_S else ""
        yield verdict(
            "clock",
            passed=skew <= _SKEW_WARNING_S,
            ok=f"this clock and that of {who} agree",
            otherwise=f"this clock and that of {who} are {skew:.0f} s apart{rejects}",
            do="synchronize both clocks (chrony, systemd-timesyncd)",
            state=State.FAILED if rejects else State.WARNING,
        )


def _filesystem(path: Path) -> str:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return ""
    real = path.resolve()
    over = [(len(where), kind) for _, where, kind, *_ in mounts if real.is_relative_to(where)]
    return max(over, default=(0, ""))[1]


def own_url(name: str, environment: Mapping[str, str]) -> str | None:
    """Where a service with these settings serves ``/readyz`` on this machine; None if they do not say."""
    with suppress(TaskbridgeError):
        settings = load_settings(_SERVICES[name], environment)
        host, port = settings.host, settings.port
        if isinstance(settings, EdgeSettings) and settings.operator_port is not None:
            host, port = settings.operator_host, settings.operator_port
        host = _LOOPBACK if host in _ALL_INTERFACES else host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}" if port else None
    return None


def kafka(admin: Admin) -> Iterator[Finding]:
    """The checks of Kafka that no service makes. Raises TopicsUnavailable if Kafka does not answer."""
    cluster = metadata(admin)
    yield ok("kafka", f"{admin.servers} answers")
    yield from brokers([(each.host, each.port) for each in cluster.brokers.values()])
    there = sorted({topic.name for topic in topics.ALL} & cluster.topics.keys())
    yield from replicas({name: cluster.topics[name].partitions for name in there})


def brokers(addresses: list[tuple[str, int]]) -> Iterator[Finding]:
    for host, port in addresses:
        try:
            socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
        except OSError as error:
            why = error.strerror or error
            yield failed(
                "brokers",
                f"cannot reach the broker that Kafka advertises as {host}:{port}: {why}",
                "set advertised.listeners to an address that this machine can reach",
            )
    few = f"{len(addresses)} brokers: too few for {_ENOUGH_BROKERS} replicas"
    yield verdict(
        "brokers",
        passed=len(addresses) >= _ENOUGH_BROKERS,
        ok=f"{len(addresses)} brokers",
        otherwise=few if len(addresses) > 1 else "One broker: if its disk dies, the data is gone.",
        do=f"run {_ENOUGH_BROKERS} brokers, with {_ENOUGH_BROKERS} replicas of each topic",
        state=State.WARNING,
    )


def replicas(found: Mapping[str, Mapping[int, Any]]) -> Iterator[Finding]:
    behind = 0
    for name, partitions in found.items():
        if leaderless := sorted(number for number, each in partitions.items() if each.leader < 0):
            says = f"{name} has no leader for partitions {leaderless}"
            yield failed("replicas", says, "start the missing brokers")
        behind += sum(len(each.isrs) < len(each.replicas) for each in partitions.values())
    yield verdict(
        "replicas",
        passed=not behind,
        ok="all replicas are in sync",
        otherwise=f"{behind} partitions have replicas that are not in sync",
        do="start the missing brokers",
        state=State.WARNING,
    )


def readiness(service: str, url: str, *, missing: State = State.FAILED) -> Iterator[Finding]:
    """What a service reports of itself; if it does not run, that is a finding of the state ``missing``."""
    try:
        with inside_client(timeout_s=_TIMEOUT_S) as client:
            answer = client.get(f"{url.rstrip('/')}/readyz")
        parts: Mapping[str, Any] = answer.json()
        ready = bool(parts["ready"])
    except (*NO_ANSWER, ValueError, KeyError, TypeError) as error:
        do = f"start it: its log says what is missing; or set --{service}-url"
        yield Finding("service", missing, f"no {service} answers at {url}: {error}", do)
        return
    wrong = "; ".join(f"{name}: {value}" for name, value in parts.items() if _is_wrong(value))
    if not ready:
        yield failed("service", f"the {service} at {url} is not ready: {wrong or answer.text}", "see its log")
    elif parts.get("degraded") or parts.get("problems"):
        yield warning("service", f"the {service} at {url} is ready, but {wrong}", "see its log")
    else:
        yield ok("service", f"the {service} at {url} is ready")
    if service == "webhooks":
        for name, condition in parts.get("endpoints", {}).items():
            if condition != "enabled":
                see = f"see the answers: taskbridge set-aside list deliveries --outcome any --endpoint {name}"
                yield warning("endpoints", f"{name} is {condition}: its deliveries wait", see)


def end_to_end(
    edge_url: str, center_url: str, credentials: Credentials, api_token: str | None, bearer_token: str
) -> Iterator[Finding]:
    """Post a signed task for a person who does not exist, wait for its live update, then delete it."""
    signers = (each for token in credentials.tokens for each in credentials.signers(token.app_type))
    app, token = next(((app, token) for app, token in signers if app.corp_id is not None), (None, None))
    if app is None or token is None:
        yield failed(
            "end-to-end", "the credentials file has no app with a corp_id to sign for", "add one, or set --credentials"
        )
        return
    instance = f"{_DOCTOR}-{uuid.uuid4()}"
    named = {"appType": app.app_type, "corpId": str(app.corp_id), "formInstId": instance}
    task = {
        **{name: named[name] for name in ("appType", "corpId")},
        "formInstanceId": instance,
        "taskId": instance,
        "actionerId": [_DOCTOR],
        "title": "taskbridge doctor",
    }
    target = f"{center_url.rstrip('/')}/v1/corps/{app.corp_id}/users/{_DOCTOR}/events"
    with Sender(edge_url, bearer_token) as sender, _event_stream(target, api_token) as lines:
        for action, parameters, change in (
            ("create", {"task": json.dumps(task)}, "ADDED"),
            ("delete", named, "REMOVED"),
        ):
            started = time.perf_counter()
            answer = sender.post(action, parameters, system_token=token.secret.get_secret_value(), encoding="form")
            if not answer.accepted:
                yield failed("end-to-end", f"the edge answered {answer.status}: {answer.body}", "see the response body")
                return
            is_received = _received(lines, instance, change)
            milliseconds = (time.perf_counter() - started) * 1000
            yield verdict(
                "end-to-end",
                passed=is_received,
                ok=f"{action} accepted ({answer.body['durability']}), live update after {milliseconds:.0f} ms",
                otherwise=f"no live update {change} within {_UPDATE_WITHIN_S} s",
                do="see taskbridge status and the log of the center",
            )
            if not is_received:
                return


@contextmanager
def _event_stream(target: str, api_token: str | None) -> Generator[Iterator[str]]:
    """The lines of the open stream. Raises OperatorError if it does not open, or breaks while it is read."""
    try:
        with (
            inside_client(timeout_s=_UPDATE_WITHIN_S, headers=bearer(api_token)) as client,
            client.stream("GET", target) as stream,
        ):
            if not stream.is_success:
                raise OperatorError(f"{target} answered {stream.status_code}")
            lines = stream.iter_lines()
            # The first line shows that it is open.
            next(lines, None)
            yield lines
    except NO_ANSWER as error:
        raise OperatorError(f"cannot read the event stream {target}: {error}") from error


def _received(lines: Iterator[str], instance: str, change: str) -> bool:
    deadline = time.monotonic() + _UPDATE_WITHIN_S
    for line in lines:
        if line.startswith("data: ") and f'"{instance}"' in line and f'"change":"{change}"' in line:
            return True
        if time.monotonic() > deadline:
            return False
    return False


def _is_wrong(value: object) -> bool:
    return bool(value) and isinstance(value, str | list) and value not in ("ok", "connected", "live", "native")
