"""What runs: what the services say of themselves, the registry, and one callback all the way through."""

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


def registry(asked: Registry) -> Iterator[Finding]:
    """Whether it answers, and has our schemas or takes them.

    Raises:
        RegistryUnavailable: no answer.
    """
    asked.client.ask()
    yield ok("registry", "it answers")
    missing: list[str] = []
    for schema in (SchemaRef.of(topic) for topic in topics.ALL if topic.record is not None):
        try:
            asked.client.look_up(schema.subject, schema.text)
        except SchemaRefused:
            if asked.client.takes(schema.subject, schema.text):
                missing.append(schema.subject)
            else:
                yield failed(
                    "schemas",
                    f"{schema.subject} has a schema that ours is not compatible with",
                    "find out who registered it; taskbridge needs the subject for itself",
                )
    if missing:
        yield warning(
            "schemas", f"not registered: {', '.join(missing)}", "taskbridge schemas register, or start the services"
        )
    else:
        yield ok("schemas", "all are registered")


def readiness(service: str, url: str) -> Iterator[Finding]:
    """What a service that should run says of itself."""
    try:
        answer = httpx2.get(f"{url.rstrip('/')}/readyz", timeout=_TIMEOUT_S, trust_env=False)
        said: Mapping[str, Any] = answer.json()
        ready = bool(said["ready"])
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
        yield failed(
            "service", f"no {service} answers at {url}: {error}", f"start it, or say where it is (--{service}-url)"
        )
        return
    wrong = "; ".join(f"{name}: {value}" for name, value in said.items() if _is_wrong(value))
    if not ready:
        yield failed("service", f"the {service} at {url} is not ready: {wrong or answer.text}", "its log says why")
    elif said.get("degraded") or said.get("problems"):
        yield warning("service", f"the {service} at {url} is ready, but {wrong}", "its log says why")
    else:
        yield ok("service", f"the {service} at {url} is ready")


def end_to_end(edge_url: str, streams_url: str, credentials: Credentials, api_token: str | None) -> Iterator[Finding]:
    """One signed task for somebody who does not exist, until it is told live, and its deletion after it."""
    signers = (each for token in credentials.tokens for each in credentials.signers(token.app_type))
    app, token = next(((app, token) for app, token in signers if app.corp_id is not None), (None, None))
    if app is None or token is None:
        yield failed(
            "end-to-end", "the credentials file has no app with a corp_id to sign for", "name one, or --credentials"
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
                "TASKBRIDGE_API_TOKEN has a token for that organisation"
                if stream.status_code == _REFUSED
                else "its log"
            )
            yield failed("end-to-end", f"{target} answered {stream.status_code}", do)
            return
        lines = stream.iter_lines()
        # The stream is open before anything is posted.
        next(lines, None)
        for action, parameters, change in (
            ("create", {"task": json.dumps(task)}, "ADDED"),
            ("delete", named, "REMOVED"),
        ):
            started = time.perf_counter()
            answer = sender.post(action, parameters, system_token=secret, encoding="form")
            if not answer.accepted:
                yield failed("end-to-end", f"the edge answered {answer.status}: {answer.body}", "the body says why")
                return
            if not _told(lines, instance, change):
                yield failed(
                    "end-to-end", f"{change} was not told within {_THROUGH_S} s", "taskbridge status; the worker's log"
                )
                return
            milliseconds = (time.perf_counter() - started) * 1000
            yield ok(
                "end-to-end",
                f"{action} was accepted ({answer.body['durability']}) and told live in {milliseconds:.0f} ms",
            )


@contextmanager
def _event_stream(target: str, api_token: str | None) -> Generator[httpx2.Response]:
    """The open stream.

    Raises:
        OperatorError: it does not open, or breaks off while it is read.
    """
    headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
    try:
        with (
            httpx2.Client(timeout=_THROUGH_S, trust_env=False, headers=headers) as client,
            client.stream("GET", target) as stream,
        ):
            yield stream
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise OperatorError(f"{target} cannot be followed: {error}") from error


def _told(lines: Iterator[str], instance: str, change: str) -> bool:
    deadline = time.monotonic() + _THROUGH_S
    for line in lines:
        if line.startswith("data: ") and f'"{instance}"' in line and f'"change":"{change}"' in line:
            return True
        if time.monotonic() > deadline:
            return False
    return False


def _is_wrong(value: object) -> bool:
    return bool(value) and isinstance(value, str | list) and value not in ("ok", "connected", "live", "native")
