"""The page of all topics and their records, from the contract's own values and schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from reference_pages.markdown import code, page, prose, table
from taskbridge.schemas import topics
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.schemas.topics import Topic

_INTRODUCTION = """\
Values are Avro in the Confluent wire format; the schemas are in the registry too, under `TOPIC-value`, with
compatibility `FULL_TRANSITIVE`. Headers follow CloudEvents 1.0 in Kafka's binary mode. Partitions are chosen by the
Java client's hash of the key. What to do with them: [Read the topics](../how-to/read-the-topics.md)."""

_KEYS = {
    topics.TASK_EVENTS.name: ("instance id", "One callback that was verified and understood."),
    topics.TASK_STATES.name: ("instance id", "The instance as it stands; a tombstone when it is deleted."),
    topics.TASK_NOTIFICATIONS.name: ("`{corp_id}/{user_id}`", "One change in one person's view."),
    topics.TASK_EVENTS_DLQ.name: ("as received", "A record that could not be processed, the reason in its headers."),
    topics.CALLBACKS_QUARANTINE.name: ("app type, or empty", "A rejected request as received, and why."),
}
_DAY_MS = 24 * 60 * 60 * 1000


def topics_page() -> str:
    rows = [
        (code(each.name), _KEYS[each.name][0], _record(each), _KEYS[each.name][1], _kept(each), _size(each))
        for each in topics.ALL
    ]
    records = [each.record for each in topics.ALL if each.record]
    return page(
        "Topics and records",
        _INTRODUCTION,
        table(("topic", "key", "value", "a record is", "kept", "largest record"), rows),
        *(_fields(record) for record in records),
    )


def _record(topic: Topic) -> str:
    return f"[{topic.record}](#{topic.record.lower()})" if topic.record else "as received"


def _kept(topic: Topic) -> str:
    settings = topic.settings
    if settings["cleanup.policy"] == "compact":
        return "compacted"
    kept = f"{int(settings['retention.ms']) // _DAY_MS} days"
    limit = settings.get("retention.bytes")
    return f"{kept}, {int(limit) >> 20} MiB a partition" if limit else kept


def _size(topic: Topic) -> str:
    return f"{int(topic.settings.get('max.message.bytes', topics.USUAL_MESSAGE_BYTES)) / (1 << 20):.3g} MiB"


def _fields(record: str) -> str:
    parts: list[str] = []
    for name, schema, level in _named(json.loads(schema_text(record)), 2):
        parts += [f"{'#' * level} {name}", prose(schema.get("doc", ""))]
        if schema["type"] == "record":
            rows = [(code(each["name"]), _kind(each["type"]), prose(each.get("doc", ""))) for each in schema["fields"]]
            parts.append(table(("field", "type", "meaning"), rows))
        else:
            parts.append(f"One of {', '.join(code(each) for each in schema['symbols'])}.")
    return "\n\n".join(each for each in parts if each)


def _named(schema: Any, level: int) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Every record and enum of a schema, the outermost first."""
    if isinstance(schema, list):
        for each in cast("list[Any]", schema):
            yield from _named(each, level)
    elif isinstance(schema, dict):
        found = cast("dict[str, Any]", schema)
        if found["type"] in ("record", "enum"):
            yield found["name"], found, level
            for each in found.get("fields", ()):
                yield from _named(each["type"], 3)
        for part in ("items", "values"):
            yield from _named(found.get(part), 3)


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
