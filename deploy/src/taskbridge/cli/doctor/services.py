"""Checks of running services: readiness, the registry, and one callback end to end."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from taskbridge.cli.callbacks.sending import Sender
from taskbridge.cli.doctor.findings import failed, ok, warning
from taskbridge.schemas import topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import SchemaRef, SchemaRefused

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from taskbridge.cli.doctor.findings import Finding
    from taskbridge.edge.verification.credentials import Credentials
    from taskbridge.schemas.registry import Registry

_TIMEOUT_S = 5
_THROUGH_S = 30
_DOCTOR = "taskbridge-doctor"
_REFUSED = 401


def registry(checked: Registry) -> Iterator[Finding]:
    """Check that it answers, and has our schemas or accepts them.

    Raises:
        RegistryUnavailable: the registry does not answer.
    """
    checked.client.ping()
    yield ok("registry", "it answers")
    missing: list[str] = []
    for schema in (SchemaRef.of(topic) for topic in topics.ALL if topic.record is not None):
        try:
            checked.client.look_up(schema.subject, schema.text)
        except SchemaRefused:
            if checked.client.is_compatible(schema.subject, schema.text):
                missing.append(schema.subject)
            else:
                yield failed(
                    "schemas",
                    f"{schema.subject} has a schema that is incompatible with ours",
                    "find out who registered it; taskbridge must be the only writer of this subject",
                )
    if missing:
        yield warning(
            "schemas", f"not registered: {', '.join(missing)}", "run taskbridge schemas register, or start the services"
        )
    else:
        yield ok("schemas", "all are registered")


def readiness(service: str, url: str) -> Iterator[Finding]:
    """Check the readiness of a service that should be running."""
    try:
        answer = httpx2.get(f"{url.rstrip('/')}/readyz", timeout=_TIMEOUT_S, trust_env=False)
        said: Mapping[str, Any] = answer.json()
        ready = bool(said["ready"])
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
        yield failed("service", f"no {service} answers at {url}: {error}", f"start it, or set --{service}-url")
        return
    wrong = "; ".join(f"{name}: {value}" for name, value in said.items() if _is_wrong(value))
    if not ready:
        yield failed("service", f"the {service} at {url} is not ready: {wrong or answer.text}", "see its log")
    elif said.get("degraded") or said.get("problems"):
        yield warning("service", f"the {service} at {url} is ready, but {wrong}", "see its log")
    else:
        yield ok("service", f"the {service} at {url} is ready")


def end_to_end(edge_url: str, streams_url: str, credentials: Credentials, api_token: str | None) -> Iterator[Finding]:
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
    target = f"{streams_url.rstrip('/')}/v1/corps/{app.corp_id}/users/{_DOCTOR}/events"
    secret = token.secret.get_secret_value()
    with Sender(edge_url) as sender, _event_stream(target, api_token) as stream:
        if not stream.is_success:
            do = (
                "set TASKBRIDGE_API_TOKEN to a token for that corp" if stream.status_code == _REFUSED else "see its log"
            )
            yield failed("end-to-end", f"{target} answered {stream.status_code}", do)
            return
        lines = stream.iter_lines()
        # Open the stream before posting.
        next(lines, None)
        for action, parameters, change in (
            ("create", {"task": json.dumps(task)}, "ADDED"),
            ("delete", named, "REMOVED"),
        ):
            started = time.perf_counter()
            answer = sender.post(action, parameters, system_token=secret, encoding="form")
            if not answer.accepted:
                yield failed("end-to-end", f"the edge answered {answer.status}: {answer.body}", "see the response body")
                return
            if not _received(lines, instance, change):
                yield failed(
                    "end-to-end",
                    f"no live update {change} within {_THROUGH_S} s",
                    "see taskbridge status and the worker's log",
                )
                return
            milliseconds = (time.perf_counter() - started) * 1000
            yield ok(
                "end-to-end",
                f"{action} accepted ({answer.body['durability']}), live update after {milliseconds:.0f} ms",
            )


@contextmanager
def _event_stream(target: str, api_token: str | None) -> Generator[httpx2.Response]:
    """The open stream.

    Raises:
        OperatorError: it does not open, or breaks while it is read.
    """
    headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
    try:
        with (
            httpx2.Client(timeout=_THROUGH_S, trust_env=False, headers=headers) as client,
            client.stream("GET", target) as stream,
        ):
            yield stream
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise OperatorError(f"cannot read the event stream {target}: {error}") from error


def _received(lines: Iterator[str], instance: str, change: str) -> bool:
    deadline = time.monotonic() + _THROUGH_S
    for line in lines:
        if line.startswith("data: ") and f'"{instance}"' in line and f'"change":"{change}"' in line:
            return True
        if time.monotonic() > deadline:
            return False
    return False


def _is_wrong(value: object) -> bool:
    return bool(value) and isinstance(value, str | list) and value not in ("ok", "connected", "live", "native")
