"""The page of all settings, from the models that read them."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from reference_pages.markdown import also, code, listed, page, prose
from taskbridge.center.settings import settings_class
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.edge.settings import EdgeSettings
from taskbridge.landing.settings import LandSettings
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.runtime.settings import DatabaseSettings, ProcessSettings
from taskbridge.schemas.topics import DEFAULT_PARTITIONS
from taskbridge.streams.settings import StreamsSettings
from taskbridge.webhooks.settings import WebhooksSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

_INTRODUCTION = """\
The services read their settings from environment variables and check all of them at start. If one is missing or wrong,
the service exits with one line that names it, without its value. `taskbridge up` and `taskbridge demo` set addresses,
ports, folders and credentials themselves, and pass all others on. In brackets is the default."""

_SERVICE = "SERVICE_"
SERVICES: Mapping[str, type[BaseSettings]] = {
    "edge": EdgeSettings,
    "streams": StreamsSettings,
    "center": settings_class(),
    "webhooks": WebhooksSettings,
    "reconcile": ReconcileSettings,
    "land": LandSettings,
    "approvals": ApprovalsSettings,
}

SHARED = {
    "TASKBRIDGE_DATA_DIR": (
        "taskbridge-data",
        "Default of `--data-dir` of every command: the folder of `taskbridge up`, or of an edge that runs without it.",
    ),
    "TASKBRIDGE_PARTITIONS": (
        str(DEFAULT_PARTITIONS),
        "Number of partitions of a new topic. Set the same value for all services and commands.",
    ),
    "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": (
        "",
        (
            "`up`, `demo` and tests use this Kafka instead of starting one. For other commands: "
            "default of `--bootstrap-servers`."
        ),
    ),
    "TASKBRIDGE_SCHEMA_REGISTRY_URL": ("", "The same for the schema registry's Confluent API."),
    "TASKBRIDGE_SYSTEM_TOKEN": (
        "",
        "Default of `--token` of `send` and `sign`. A variable does not appear in the shell's history.",
    ),
    "TASKBRIDGE_SOURCE_SECRET": ("", "Default of `--secret` of `send`, for the same reason."),
    "TASKBRIDGE_API_TOKEN": ("", "Default of `--api-token` of `doctor` and `status`, for the same reason."),
    "TASKBRIDGE_CACHE_DIR": (
        "a folder in the user's cache",
        "Folder for the jars of Kafka and the registry that `up` and `demo` download.",
    ),
    "TASKBRIDGE_NATIVE_CORE": (
        "",
        "While taskbridge is being installed: `off` skips the Rust core, `required` fails if it cannot be built.",
    ),
}
"""Settings that several parts read, written by hand."""

_TRACES = """\
With the extra `otel`: see [Trace it](../how-to/trace-it.md).

- `OTEL_EXPORTER_OTLP_ENDPOINT`: URL that receives traces, by OTLP over HTTP: `http://collector:4318`. Traces are off
  without it.

The other variables are OpenTelemetry's own, such as those of the sampler. Its SDK reads them as
[its documentation](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) says. Any other
protocol than `http/protobuf` turns traces off."""

_OF_EACH = {
    "port": "Port on which it serves. `0` chooses a free port, except for the edge.",
    "data_dir": "Folder for local data: the edge's spool and its signatures of past callbacks, a worker's states, the"
    " SQLite database, and the call counts and the progress of reconcile. Each process needs its own: put it on a disk"
    " that survives restarts.",
}
"""Settings that each service has with a default of its own."""

INTERNAL = frozenset({"TASKBRIDGE_RUN"})
"""Set only by ``taskbridge up``, for the services that it starts."""


def settings_page() -> str:
    return page(
        "Settings",
        _INTRODUCTION,
        "## All services",
        "`SERVICE` is `EDGE`, `STREAMS`, `CENTER`, `WEBHOOKS`, `RECONCILE`, `LAND` or `APPROVALS`, which has no Kafka."
        " Only the task center and webhooks have a database of their own.",
        _list(_shared_rows()),
        "## The edge",
        *_parts(EdgeSettings),
        "## The streams service",
        *_parts(StreamsSettings),
        "## The task center",
        *_parts(settings_class()),
        "## Webhooks",
        *_parts(WebhooksSettings),
        "## Reconcile",
        *_parts(ReconcileSettings),
        "## Land",
        *_parts(LandSettings),
        "## DingTalk's approvals",
        *_parts(ApprovalsSettings),
        "## The program and all services",
        _list((code(name), code_or_words(default), meaning) for name, (default, meaning) in SHARED.items()),
        "## Traces",
        _TRACES,
    )


def _parts(model: type[BaseSettings]) -> list[str]:
    """The settings of this service alone, and the names of those that it shares."""
    prefix, rows = model.model_config.get("env_prefix", ""), settings_rows(model)
    shared = [(name.replace(_SERVICE, prefix), *rest) for name, *rest in _shared_rows()]
    shared += [each for each in rows if each[0] in [code(f"{prefix}{name.upper()}") for name in _OF_EACH]]
    return [_list(each for each in rows if each not in shared), also(rows, shared)]


def _list(rows: Iterable[tuple[str, str, str]]) -> str:
    return listed((f"{name} ({default})" if default else name, meaning) for name, default, meaning in rows)


def _shared_rows() -> list[tuple[str, str, str]]:
    rows = settings_rows(DatabaseSettings, _SERVICE)
    rows = [each for each in rows if "DATA_DIR" not in each[0]]
    for field, meaning in _OF_EACH.items():
        having = {name: model.model_fields[field] for name, model in SERVICES.items() if field in model.model_fields}
        defaults = ", ".join(f"{name} {default_of(field, each)}" for name, each in having.items())
        rows.append((code(f"{_SERVICE}{field.upper()}"), defaults, meaning))
    return rows


def settings_rows(model: type[BaseSettings], prefix: str | None = None) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each.

    Raises:
        ValueError: a field has no docstring.
    """
    prefix = model.model_config.get("env_prefix", "") if prefix is None else prefix
    rows: list[tuple[str, str, str]] = []
    texts = _docstrings(model)
    for field, found in sorted(model.model_fields.items(), key=lambda each: each[0].startswith("log_")):
        name = f"{prefix}{field.upper()}"
        if not (text := texts.get(field)):
            raise ValueError(f"{name} is not documented: give the field of {model.__name__} a docstring")
        rows.append((code(name), default_of(field, found), prose(text)))
    return rows


def _docstrings(model: type[BaseSettings]) -> dict[str, str]:
    """Of the fields, from the source: pydantic would look for them at each start of a service, a tenth of its time."""
    inherited = {} if model is ProcessSettings else _docstrings(model.__bases__[0])
    (body,) = [each.body for each in ast.parse(inspect.getsource(model)).body if isinstance(each, ast.ClassDef)]
    return inherited | {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def default_of(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if value is None or isinstance(value, SecretStr) or value in ((), frozenset(), ""):
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, int) and "bytes" in name:
        return _size(value)
    return code(f"{value:g}" if isinstance(value, float) else str(value))


def _size(count: int) -> str:
    for unit, one in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % one == 0:
            return f"{code(str(count))}, {count // one} {unit}"
    return code(str(count))


def code_or_words(text: str) -> str:
    return text if " " in text else code(text)
