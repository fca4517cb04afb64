"""The page of all topics and their records: the AsyncAPI document, for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from reference_pages.asyncapi import OPERATORS, asyncapi_document
from reference_pages.markdown import also, code, fenced, page, prose, repeated, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reference_pages.markdown import Row

_FOR_PROGRAMS = """\
The same for programs, as AsyncAPI 3.1: [asyncapi.json](asyncapi.json).
How to use the topics: [Read the topics](../how-to/read-the-topics.md)."""

_HEADS = ("header", "present", "meaning")

_DAY_MS = 24 * 60 * 60 * 1000


def topics_page() -> str:
    document = asyncapi_document()
    headers = repeated(map(_headers, document["components"]["messages"].values()), at_least=4)
    rows: list[Row] = []
    parts = [f"## Headers of most records\n\n{table(_HEADS, headers)}"]
    for channel in document["channels"].values():
        messages = [document["components"]["messages"][name] for name in channel["messages"]]
        rows.append(_row(channel, messages))
        for message in messages:
            parts += _message(channel, message, document["components"]["schemas"], headers)
    heads = ("topic", "key", "value", "a record is", "retention", "largest record")
    return page("Topics and records", document["info"]["description"], _FOR_PROGRAMS, table(heads, rows), *parts)


def _row(channel: Mapping[str, Any], messages: list[dict[str, Any]]) -> tuple[str, ...]:
    configuration = channel["bindings"]["kafka"]["topicConfiguration"]
    values = " or ".join(f"[{each['name']}](#{each['name'].lower()})" for each in messages)
    whose = " For operators." if channel["tags"][0]["name"] == OPERATORS else ""
    size = f"{configuration['max.message.bytes'] / (1 << 20):.3g} MiB"
    return (
        code(channel["address"]),
        _key(messages[0]),
        values,
        channel["summary"] + whose,
        _retention(configuration),
        size,
    )


def _key(message: Mapping[str, Any]) -> str:
    return str(message["bindings"]["kafka"]["key"]["description"])


def _retention(configuration: Mapping[str, Any]) -> str:
    if configuration["cleanup.policy"] == ["compact"]:
        return "compacted"
    retention = f"{configuration['retention.ms'] // _DAY_MS} days"
    limit = configuration.get("retention.bytes")
    return f"{retention}, {limit >> 20} MiB a partition" if limit else retention


def _headers(message: Mapping[str, Any]) -> list[Row]:
    required = message["headers"]["required"]
    return [
        (code(name), "always" if name in required else "sometimes", _meaning(found))
        for name, found in message["headers"]["properties"].items()
    ]


def _message(
    channel: Mapping[str, Any], message: Mapping[str, Any], schemas: Mapping[str, Any], shared: Sequence[Row]
) -> Iterator[str]:
    yield f"## {message['name']}"
    yield f"{prose(message['summary'])} On {code(channel['address'])}."
    schema: Any = schemas[message["name"]]["schema"] if message["name"] in schemas else None
    yield prose(message["payload"]["description"]) if schema is None else _fields(schema)
    rows = _headers(message)
    if own := [each for each in rows if each not in shared]:
        yield table(_HEADS, own)
    if headers := also(rows, shared):
        yield headers
    if schema is not None:
        yield fenced(json.dumps(message["examples"][0], ensure_ascii=False, indent=2), "json")
        for name, found in _named(schema["fields"]):
            # A heading's address is its text: a link to a message must not lead to a part of another one.
            yield f"### {name} in {message['name']}" if name in schemas else f"### {name}"
            yield prose(found.get("doc", ""))
            yield _fields(found) if found["type"] == "record" else _one_of(found["symbols"])


def _meaning(found: Mapping[str, Any]) -> str:
    return f"{prose(found['description'])} {_one_of(found['enum'])}" if "enum" in found else prose(found["description"])


def _one_of(words: list[str]) -> str:
    return f"One of {', '.join(map(code, words))}." if len(words) > 1 else f"Always {code(words[0])}."


def _fields(record: Mapping[str, Any]) -> str:
    rows = [(code(each["name"]), _kind(each["type"]), prose(each.get("doc", ""))) for each in record["fields"]]
    return table(("field", "type", "meaning"), rows)


def _named(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every record and enum within, the outer ones first."""
    if isinstance(schema, list):
        for each in cast("list[Any]", schema):
            yield from _named(each)
    elif isinstance(schema, dict):
        found = cast("dict[str, Any]", schema)
        if found.get("type") in ("record", "enum"):
            yield found["name"], found
        for part in ("type", "fields", "items", "values"):
            yield from _named(found.get(part))


def _kind(schema: Any) -> str:
    if isinstance(schema, str):
        return schema
    if isinstance(schema, list):
        return " or ".join(_kind(each) for each in cast("list[Any]", schema))
    kind = schema["type"]
    if kind == "array":
        return f"list of {_kind(schema['items'])}"
    if kind == "map":
        return f"map of {_kind(schema['values'])}"
    return str(schema.get("name") or schema.get("logicalType") or kind)
