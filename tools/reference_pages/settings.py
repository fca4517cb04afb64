"""The page of all settings, from the models that read them."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from reference_pages.markdown import code, page, prose, table
from taskbridge.edge.settings import EdgeSettings
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.schemas.topics import DEFAULT_PARTITIONS
from taskbridge.streams.settings import StreamsSettings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

_INTRODUCTION = """\
The services take their settings from environment variables, check all of them at start, and end with one line for
what is missing or wrong, which never shows a value. `taskbridge up` and `taskbridge demo` set the addresses, ports,
folders and credentials themselves and pass every other `EDGE_…` and `STREAMS_…` on."""

SHARED = {
    "TASKBRIDGE_DATA_DIR": (
        "taskbridge-data",
        "`--data-dir` of every command: the folder of `taskbridge up`, or of an edge that runs without it.",
    ),
    "TASKBRIDGE_PARTITIONS": (
        str(DEFAULT_PARTITIONS),
        "Partitions of topics that are made anew; the same for all services and commands.",
    ),
    "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": (
        "",
        "For `up`, `demo` and tests: use this Kafka, start none. For commands: `--bootstrap-servers`.",
    ),
    "TASKBRIDGE_SCHEMA_REGISTRY_URL": ("", "The registry's Confluent API, likewise."),
    "TASKBRIDGE_SYSTEM_TOKEN": ("", "`--token` of `send` and `sign`, kept out of the shell's history."),
    "TASKBRIDGE_SOURCE_SECRET": ("", "`--secret` of `send`, likewise."),
    "TASKBRIDGE_API_TOKEN": ("", "`--api-token` of `doctor` and `status`, likewise."),
    "TASKBRIDGE_CACHE_DIR": (
        "a folder in the user's cache",
        "Where the jars of Kafka and the registry are kept that `up` and `demo` fetch.",
    ),
    "TASKBRIDGE_KAFKA_IMAGE": ("", "Where a Docker daemon answers: another image of Kafka for `up` and `demo`."),
    "TASKBRIDGE_REGISTRY_IMAGE": ("", "Likewise, of the registry."),
    "TASKBRIDGE_NATIVE_CORE": (
        "",
        "When taskbridge is installed: `off` leaves the Rust core out, `required` fails where it cannot be built.",
    ),
}
"""What is no service's own, by hand: these are read in several places."""

TRACES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": (
        "",
        "Where traces go, by OTLP over HTTP: `http://collector:4318`. Without this or the next two there are none.",
    ),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("", "Likewise, for traces alone, with its path: `…/v1/traces`."),
    "OTEL_TRACES_EXPORTER": ("", "`otlp`: to the default endpoint, if no other is given; `none`: no traces."),
    "OTEL_SDK_DISABLED": ("false", "`true`: no traces."),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf", "No other is spoken: with another one there are no traces."),
    "OTEL_EXPORTER_OTLP_HEADERS": ("", "What the receiver asks for, such as a token: `key=value,…`, percent-encoded."),
    "OTEL_TRACES_SAMPLER": (
        "parentbased_always_on",
        "Which traces are recorded: `parentbased_traceidratio` a part of those that begin here.",
    ),
    "OTEL_TRACES_SAMPLER_ARG": ("1.0", "What part."),
    "OTEL_SERVICE_NAME": (
        "the distribution",
        "What the service is called: else `taskbridge-edge`, `taskbridge-streams`.",
    ),
    "OTEL_RESOURCE_ATTRIBUTES": ("", "What else is said of it: `deployment.environment.name=production`."),
    "OTEL_BSP_MAX_QUEUE_SIZE": ("2048", "So many spans wait to be sent; what comes beyond that drops the oldest."),
    "OTEL_BSP_SCHEDULE_DELAY": ("5000", "Milliseconds that a span waits at most before it is sent."),
    "OTEL_SPAN_LINK_COUNT_LIMIT": ("128", "So many events at most are linked to the span of their chunk."),
}
"""Of OpenTelemetry's SDK, which reads these and all its others itself, by hand."""

INTERNAL = frozenset({"TASKBRIDGE_RUN"})
"""Set by ``taskbridge up`` for the services that it starts; nobody else sets them."""


def settings_page() -> str:
    return page(
        "Settings",
        _INTRODUCTION,
        "## The edge",
        table(("setting", "default", "meaning"), settings_rows(EdgeSettings)),
        "## The streams service",
        table(("setting", "default", "meaning"), settings_rows(StreamsSettings)),
        "## Reconcile",
        table(("setting", "default", "meaning"), settings_rows(ReconcileSettings)),
        "## The program and both services",
        table(
            ("setting", "default", "meaning"),
            [(code(name), code_or_words(default), meaning) for name, (default, meaning) in SHARED.items()],
        ),
        "## Traces",
        "With the extra `otel`: see [Trace it](../how-to/trace-it.md). OpenTelemetry's SDK has more of them.",
        table(
            ("setting", "default", "meaning"),
            [(code(name), code_or_words(default), meaning) for name, (default, meaning) in TRACES.items()],
        ),
    )


def settings_rows(model: type[BaseSettings]) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each.

    Raises:
        ValueError: a field has no docstring.
    """
    prefix = model.model_config.get("env_prefix", "")
    rows: list[tuple[str, str, str]] = []
    texts = _docstrings(model)
    for field, found in model.model_fields.items():
        name = f"{prefix}{field.upper()}"
        if not (text := texts.get(field)):
            raise ValueError(f"{name} is not documented: give the field of {model.__name__} a docstring")
        rows.append((code(name), default_of(field, found), prose(text)))
    return rows


def _docstrings(model: type[BaseSettings]) -> dict[str, str]:
    """Of the fields, from the source: pydantic would look for them at each start of a service, a tenth of its time."""
    (body,) = [each.body for each in ast.parse(inspect.getsource(model)).body if isinstance(each, ast.ClassDef)]
    return {
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
        return "none"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, int) and "bytes" in name:
        return _size(value)
    return code(f"{value:g}" if isinstance(value, float) else str(value))


def _size(count: int) -> str:
    for unit, one in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % one == 0:
            return f"{code(str(count))} ({count // one} {unit})"
    return code(str(count))


def code_or_words(text: str) -> str:
    return text if " " in text else code(text) or "none"
