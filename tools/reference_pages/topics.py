"""The page of all topics and their records: the AsyncAPI document, for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from reference_pages.asyncapi import OPERATORS, asyncapi_document
from reference_pages.markdown import UNTYPED, also, code, fenced, listed, page, prose, repeated, table, typed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reference_pages.markdown import Row

_FOR_PROGRAMS = f"""\
The same for programs, as AsyncAPI 3.1, with an example of each record: [asyncapi.json](asyncapi.json).
How to use the topics: [Read the topics](../how-to/read-the-topics.md). {UNTYPED}"""

_SHOWN = "TaskNotification"
"""The record that most programs read: the page has an example of it, without fields that are null."""

_DAY_MS = 24 * 60 * 60 * 1000


def topics_page() -> str:
    document = asyncapi_document()
    headers = repeated(map(_headers, document["components"]["messages"].values()), at_least=4)
    rows: list[Row] = []
    types = _Types(document["components"]["schemas"])
    parts = [f"## Headers of most records\n\n{listed(headers)}"]
    for channel in document["channels"].values():
        messages = [document["components"]["messages"][name] for name in channel["messages"]]
        rows.append(_row(channel, messages))
        for message in messages:
            parts += _message(channel, message, types, headers)
    heads = ("topic", "key", "value", "a record is", "retention", "largest record")
    return page("Topics and records", document["info"]["description"], _FOR_PROGRAMS, table(heads, rows), *parts)


class _Types:
    """Records and enums of the schemas, each explained once: where it occurs first."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self.schemas = schemas
        self._headings: dict[str, str] = {}
        self._explained: set[str] = set()
        self._shown: dict[Row, str] = {}
        for message, found in schemas.items():
            for name, named in _named(found["schema"]["fields"]):
                # A heading's address is its text: a link to a message must not lead to a part of another one.
                self._headings.setdefault(_identity(named), f"{name} in {message}" if name in schemas else name)

    def heading(self, named: Mapping[str, Any]) -> str:
        return self._headings[_identity(named)]

    def first(self, message: str) -> Iterator[Mapping[str, Any]]:
        for _, named in _named(self.schemas[message]["schema"]["fields"]):
            if (identity := _identity(named)) not in self._explained:
                self._explained.add(identity)
                yield named

    def fields(self, record: Mapping[str, Any]) -> str:
        known = {found["name"]: self.heading(found) for _, found in _named(record["fields"])}
        rows = [
            (typed(code(each["name"]), _kind(each["type"], known)), prose(each.get("doc", "")))
            for each in record["fields"]
        ]
        earlier: dict[str, list[str]] = {}
        own: list[Row] = []
        for row in rows:
            if (name := self._shown.setdefault(row, record["name"])) == record["name"]:
                own.append(row)
            else:
                earlier.setdefault(name, []).append(row[0].partition(" (")[0])
        parts = [listed(own)] if own else []
        parts += [f"As in [{name}](#{name.lower()}): {', '.join(fields)}." for name, fields in earlier.items()]
        return "\n\n".join(parts)


def _identity(named: Mapping[str, Any]) -> str:
    return json.dumps([named["name"], named.get("doc"), named.get("fields"), named.get("symbols")], sort_keys=True)


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
        (code(name), _meaning(found) if name in required else f"Optional. {_meaning(found)}")
        for name, found in message["headers"]["properties"].items()
    ]


def _message(
    channel: Mapping[str, Any], message: Mapping[str, Any], types: _Types, shared: Sequence[Row]
) -> Iterator[str]:
    yield f"## {message['name']}"
    yield f"{prose(message['summary'])} On {code(channel['address'])}."
    name = message["name"]
    schema: Any = types.schemas[name]["schema"] if name in types.schemas else None
    yield prose(message["payload"]["description"]) if schema is None else types.fields(schema)
    rows = _headers(message)
    if own := [each for each in rows if each not in shared]:
        yield f"Headers:\n\n{listed(own)}"
    if headers := also(rows, shared):
        yield headers
    if name == _SHOWN:
        example = message["examples"][0]
        payload = {field: value for field, value in example["payload"].items() if value is not None}
        yield fenced(
            json.dumps({"headers": example["headers"], "payload": payload}, ensure_ascii=False, indent=2), "json"
        )
    if schema is not None:
        for found in types.first(name):
            yield f"### {types.heading(found)}"
            yield prose(found.get("doc", ""))
            yield types.fields(found) if found["type"] == "record" else _one_of(found["symbols"])


def _meaning(found: Mapping[str, Any]) -> str:
    return f"{prose(found['description'])} {_one_of(found['enum'])}" if "enum" in found else prose(found["description"])


def _one_of(words: list[str]) -> str:
    return f"One of {', '.join(map(code, words))}." if len(words) > 1 else f"Always {code(words[0])}."


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


def _kind(schema: Any, headings: Mapping[str, str]) -> str:
    """With a link to a type of its own, by the headings of these."""
    if isinstance(schema, str):
        return _linked(schema, headings)
    if isinstance(schema, list):  # null comes first, as Avro wants the default's type there
        return " or ".join(_kind(each, headings) for each in reversed(cast("list[Any]", schema)))
    kind = schema["type"]
    if kind == "array":
        return f"list of {_kind(schema['items'], headings)}"
    if kind == "map":
        return f"map of {_kind(schema['values'], headings)}"
    return _linked(str(schema.get("name") or schema.get("logicalType") or kind), headings)


def _linked(name: str, headings: Mapping[str, str]) -> str:
    return f"[{name}](#{headings[name].lower().replace(' ', '-')})" if name in headings else name
