"""What SemVer covers, as names and their promises: of today's code, and of the last release, and what a release breaks.

A name is a path of words: its parent is the name without the last word. A promise that begins with ``required`` is what
a user must give, ``optional`` what a user may give, ``always`` what a user gets each time, ``sometimes`` not each time.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reference_pages.apis import center_document, edge_document
from reference_pages.asyncapi import asyncapi_document
from reference_pages.chart_values import chart_schema_text
from reference_pages.commands import commands
from reference_pages.metrics import metrics, ours
from reference_pages.settings import SERVICES, SHARED, default_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Entries = Iterable[tuple[str, str]]

RELEASED = Path(__file__).parents[1] / "release" / "surface.json"
"""Of the last release: ``python tools/reference.py --released`` writes today's."""

_COMPATIBLE = {("required", "optional"), ("sometimes", "always")}
_PLACES = ("_PORT", "_DIR", "_HOST", "_URL")
"""Of settings: where an upgrade must find the data, and others the service. Other defaults may change."""


def _commands() -> Entries:
    for name, command in commands():
        yield name, "command"
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        for each in command.params:
            kind = (
                "flag" if getattr(each, "is_flag", False) else "values" if each.multiple or each.nargs != 1 else "value"
            )
            words = [f"argument-{arguments.index(each)}"] if each in arguments else [*each.opts, *each.secondary_opts]
            for word in words:
                yield f"{name} {word}", f"{'required' if each.required else 'optional'} {kind}"


def _settings() -> Entries:
    for service, model in SERVICES.items():
        yield service, "service"
        document = model.model_json_schema()
        for field, found in model.model_fields.items():
            name = f"{model.model_config.get('env_prefix', '')}{field.upper()}"
            given, schema = "required" if found.is_required() else "optional", document["properties"][field]
            kind = re.sub("null or | or null", "", _kind(schema, document))  # which no variable can be
            yield f"{service} {name}", f"{given} {kind}"
            yield from _json(f"{service} {name}", schema, document, ("required", "optional"))
            if name.endswith(_PLACES) and not found.is_required():
                yield f"{service} {name} default", default_of(field, found) or "none"
    yield from ((name, "optional") for name in SHARED)


def _topics() -> Entries:
    document = asyncapi_document()
    for channel in document["channels"].values():
        topic, messages = channel["address"], [document["components"]["messages"][each] for each in channel["messages"]]
        cleanup = channel["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"]
        key = messages[0]["bindings"]["kafka"]["key"]["description"]
        yield topic, f"{' or '.join(channel['messages'])} by {key}, {','.join(cleanup)}"
        for message in messages:
            yield f"{topic} {message['name']}", "record"
            for name in message["headers"]["properties"]:
                given = "always" if name in message["headers"]["required"] else "sometimes"
                yield f"{topic} {message['name']} {name}", given


def _fields() -> Entries:
    for name, found in asyncapi_document()["components"]["schemas"].items():
        yield from _avro(name, found["schema"])


def _avro(name: str, schema: Any) -> Iterator[tuple[str, str]]:
    """The parts of a type, by the names of those that contain them."""
    for each in cast("list[Any]", schema) if isinstance(schema, list) else [schema]:
        if not isinstance(each, dict):
            continue
        found = cast("dict[str, Any]", each)
        for field in found.get("fields", ()):
            given = "optional" if "default" in field else "required"
            yield f"{name} {field['name']}", f"{given} {_avro_kind(field['type'])}"
            yield from _avro(f"{name} {field['name']}", field["type"])
        yield from ((f"{name} {symbol}", "value") for symbol in found.get("symbols", ()))
        for part in ("items", "values"):
            yield from _avro(name, found.get(part))


def _avro_kind(schema: Any) -> str:
    if isinstance(schema, list):
        return " or ".join(map(_avro_kind, cast("list[Any]", schema)))
    if isinstance(schema, str):
        return schema
    parts = [_avro_kind(schema[part]) for part in ("items", "values") if part in schema]
    return " of ".join([schema.get("logicalType") or schema.get("name") or schema["type"], *parts])


def _routes() -> Entries:
    for service, document in (("edge", edge_document()), ("center", center_document())):
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                yield from _route(f"{service} {method.upper()}:{path}", operation, document)


def _route(name: str, operation: Mapping[str, Any], document: Any) -> Iterator[tuple[str, str]]:
    yield name, "route"
    for each in operation.get("parameters", ()):
        given = "required" if each.get("required") else "optional"
        at = f"{name} {each['in']}:{each['name']}"
        yield at, f"{given} {_kind(each['schema'], document)}"
        yield from _json(at, each["schema"], document, ("required", "optional"))
    body = operation.get("requestBody", {})
    for media, content in body.get("content", {}).items():
        at = f"{name} {media}"
        yield at, "required" if body.get("required") else "optional"
        yield from _json(at, content.get("schema", {}), document, ("required", "optional"))
    for status, response in operation["responses"].items():
        if not status.startswith("2"):
            continue  # a problem document, the same for all
        yield f"{name} {status}", "answer"
        for media, content in response.get("content", {}).items():
            yield f"{name} {status} {media}", "answer"
            yield from _json(f"{name} {status} {media}", content.get("schema", {}), document, ("always", "sometimes"))


def _json(
    name: str, schema: Any, document: Any, words: tuple[str, str], within: tuple[int, ...] = ()
) -> Iterator[tuple[str, str]]:
    """The properties and the values of a JSON Schema."""
    found = _resolved(schema, document)
    if id(found) in within:
        return
    within = (*within, id(found))
    for branch in ("anyOf", "oneOf", "allOf"):
        for each in found.get(branch, ()):
            yield from _json(name, each, document, words, within)
    for field, each in found.get("properties", {}).items():
        given = words[0] if field in found.get("required", ()) else words[1]
        yield f"{name} {field}", f"{given} {_kind(each, document)}"
        yield from _json(f"{name} {field}", each, document, words, within)
    if words[1] == "optional":  # of an answer, a new value may come, and an old one need not
        yield from ((f"{name} ={value}", "value") for value in _values(found))
        if found.get("type") == "object" and found.get("additionalProperties", True) is True:
            yield f"{name} []", "optional any"
    for part in ("items", "additionalProperties"):
        if isinstance(found.get(part), dict):
            yield f"{name} []", f"{words[1]} {_kind(found[part], document)}"
            yield from _json(f"{name} []", found[part], document, words, within)


def _values(found: Any) -> list[Any]:
    return found.get("enum", [found["const"]] if "const" in found else [])


def _kind(schema: Any, document: Any) -> str:
    found = _resolved(schema, document)
    if branches := [each for branch in ("anyOf", "oneOf", "allOf") for each in found.get(branch, ())]:
        return " or ".join(sorted({_kind(each, document) for each in branches}))
    if "items" in found and isinstance(found["items"], dict):
        return f"array of {_kind(found['items'], document)}"
    kind = found.get("type", "any")
    return " or ".join(cast("list[str]", kind)) if isinstance(kind, list) else str(kind)


def _resolved(schema: Any, document: Any) -> Any:
    while "$ref" in schema:
        path = schema["$ref"].removeprefix("#/").split("/")
        schema = document
        for each in path:
            schema = schema[each]
    return schema


def _metrics() -> Entries:
    for found in metrics().values():
        yield from ((each.name, " ".join((each.kind, *each.labels))) for each in ours(found))


def _chart() -> Entries:
    schema = json.loads(chart_schema_text())
    return _json("values", schema, schema, ("required", "optional"))


KINDS: Mapping[str, Callable[[], Entries]] = {
    "commands": _commands,
    "settings": _settings,
    "topics": _topics,
    "fields": _fields,
    "routes": _routes,
    "metrics": _metrics,
    "chart values": _chart,
}


def released() -> dict[str, Any]:
    return json.loads(RELEASED.read_text("utf-8"))


def write_released(version: str) -> None:
    RELEASED.write_text(json.dumps(_today(version), ensure_ascii=False, indent=1) + "\n", "utf-8")


def compare_released(version: str) -> None:
    """Whether the file is as it would be written now: what it lacks, the next release could break unseen.

    Raises:
        SystemExit: it is not.
    """
    written, today = released(), _today(version)
    if written["version"] != version:
        sys.exit(f"of {written['version']}, not {version}")
    if found := [kind for kind in KINDS if written.get(kind) != today[kind]]:
        sys.exit(f"its {', '.join(found)} are not today's")


def _today(version: str) -> dict[str, Any]:
    return {"version": version, **{kind: dict(sorted(entries())) for kind, entries in KINDS.items()}}


def _with_values(names: Iterable[str]) -> set[str]:
    return {name.partition(" =")[0] for name in names if " =" in name}


def breaks(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What a user of the release before must change: each name with what happened to it."""
    found = [f"{name} is gone" for name in before if name not in now]
    free, of_values = before.keys() - _with_values(before), _with_values(now)
    found += [f"{name} takes only some values" for name in sorted(free & of_values)]
    for name, promise in now.items():
        if name not in before:
            if promise.startswith("required") and name.rpartition(" ")[0] in before:
                found.append(f"{name} is new and required")
        elif before[name] != promise:
            (was, _, what), (is_, _, kind) = before[name].partition(" "), promise.partition(" ")
            if what != kind or (was != is_ and (was, is_) not in _COMPATIBLE):
                found.append(f"{name} was '{before[name]}' and is '{promise}'")
    return found
