"""The AsyncAPI document: every topic, header and field, for programs to read; ``topics.py`` renders it for people.

Settings, schemas, headers and examples are the code's own: the words below say only what code cannot.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from reference_pages.samples import samples
from taskbridge.cli.connection import LOCAL_BOOTSTRAP_SERVERS, LOCAL_REGISTRY_URL
from taskbridge.schemas import topics
from taskbridge.schemas.dead_letters import (
    AT_HEADER,
    DETAIL_HEADER,
    LEFT_HEADER,
    OFFSET_HEADER,
    PARTITION_HEADER,
    REASON_HEADER,
    REPLAY_HEADER,
    REPLAY_OF_HEADER,
    REPLAYED_AT_HEADER,
    TOPIC_HEADER,
)
from taskbridge.schemas.registry import COMPATIBILITY, schema_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reference_pages.samples import Sample
    from taskbridge.schemas.topics import Topic

AVRO = "application/vnd.apache.avro+json;version=1.9.0"
CONSUMERS, OPERATORS = "consumers", "operators"

_BINDING = {"bindingVersion": "0.5.0"}

_DESCRIPTION = f"""\
The topics that taskbridge writes. The operation `send` is from its side; subscribers receive.

Values are Avro in the Confluent wire format: a zero byte, the id of the schema in the registry in four bytes, \
big-endian, then the Avro body. The schemas are here too, and in the registry under `TOPIC-value`, with compatibility \
`{COMPATIBILITY}`: decode with the schema that the record names, and resolve it to the one of your types. \
Header values are UTF-8. Headers follow CloudEvents 1.0 in Kafka's binary mode, so that consumers can filter without \
decoding. The partition is the Java client's hash of the key. Read with `isolation.level=read_committed`, and expect \
duplicates, which have the same ids. In the examples, times are milliseconds, and bytes are one character each.

Topics that begin with `taskbridge-streams` are internal to the streams service."""

_TAGS = {
    CONSUMERS: "For subscribers.",
    OPERATORS: "For operators and their commands: records that were rejected or could not be processed.",
}

_TOPICS = {
    topics.TASK_EVENTS.name: (CONSUMERS, "instance id", "One verified callback."),
    topics.TASK_STATES.name: (
        CONSUMERS,
        "instance id",
        "The present state of an instance; a tombstone once it is deleted.",
    ),
    topics.TASK_NOTIFICATIONS.name: (CONSUMERS, "`{corp_id}/{user_id}`", "One change of an entry in a person's view."),
    topics.TASK_EVENTS_DLQ.name: (
        OPERATORS,
        "as received",
        (
            "A record that could not be processed, with the reason in its headers; without a "
            "value, a note that it was replayed."
        ),
    ),
    topics.CALLBACKS_QUARANTINE.name: (
        OPERATORS,
        "app type, or empty",
        "A rejected request as received, with the reason; without a value, a note that it was replayed.",
    ),
    topics.PEOPLE.name: (
        CONSUMERS,
        "`{corp_id}/{user_id}`",
        "A person's name; a tombstone deletes it. Any system may write it.",
    ),
    topics.FORMS.name: (
        CONSUMERS,
        "`{corp_id}/{form_uuid}`",
        "The title and field labels of a form; a tombstone deletes them. Any system may write it.",
    ),
    topics.FORM_DATA.name: (
        CONSUMERS,
        "instance id",
        "The values of a form's instance; with `deleted` once it is deleted, and a tombstone some time after.",
    ),
}
"""Reader, key and record of each topic."""

_DELETES = {"type": "null", "description": "A record without a value, which deletes the key."}
_EMPTY = {"type": "null", "description": "A record without a value."}
_OTHER_MESSAGES = {
    "TaskStateTombstone": ("The instance was deleted, or its retention ended.", _DELETES),
    "PersonTombstone": ("The person is deleted.", _DELETES),
    "FormTombstone": ("The form is deleted.", _DELETES),
    "FormDataTombstone": ("The instance was deleted long ago.", _DELETES),
    "ReplayedCallback": ("A rejected request was replayed; its event is in the events topic.", _EMPTY),
    "ReplayedDeadLetter": ("A dead letter was replayed to its original topic.", _EMPTY),
    "DeadLetter": (
        "A record as received, with these headers added to its own.",
        {"description": "The bytes as received, usually a TaskEvent; none if dlq_left is present."},
    ),
}
"""Messages without a schema of ours: summary, and a description in place of the schema."""

_HEADERS = {
    "ce_specversion": "CloudEvents' version.",
    "ce_id": "Id of the record; a duplicate has the same id.",
    "ce_type": "What happened.",
    "ce_source": "`/{source}/{corp_id}/{app_type}`; in the quarantine `/edge`, because the sender is not verified.",
    "ce_subject": "Instance id; in the quarantine the app that the request names, not verified.",
    "ce_time": "When it happened.",
    "ce_reason": "Why the request was rejected: a short code.",
    "content-type": "Media type of the value.",
    "origin": "Present if reconcile read the record from DingTalk; it replaces no record without this header.",
    "traceparent": "W3C Trace Context, the last header: trace of the callback that caused this record, if any.",
    REASON_HEADER: "Code of the reason why it could not be processed.",
    DETAIL_HEADER: "The reason in words.",
    TOPIC_HEADER: "Topic that it was consumed from.",
    PARTITION_HEADER: "Partition in that topic.",
    OFFSET_HEADER: "Offset in that topic.",
    AT_HEADER: "When it was sent to the dead letters.",
    LEFT_HEADER: "Present if the record was too large for this topic: number of bytes that remain in the "
    "original topic.",
    REPLAY_OF_HEADER: "Id of what was replayed: the request's `quarantine_id`, or the dead letter's partition "
    "and offset.",
    REPLAYED_AT_HEADER: "When it was replayed.",
    REPLAY_HEADER: "Present if it was replayed from the dead letters: its partition and offset there.",
}
_FORMS: Mapping[str, Mapping[str, str]] = {
    "ce_source": {"format": "uri-reference"},
    "ce_time": {"format": "date-time"},
    AT_HEADER: {"format": "date-time"},
    REPLAYED_AT_HEADER: {"format": "date-time"},
    PARTITION_HEADER: {"pattern": "^[0-9]+$"},
    OFFSET_HEADER: {"pattern": "^[0-9]+$"},
    LEFT_HEADER: {"pattern": "^[0-9]+$"},
}
_WORDS = {"ce_specversion", "ce_type", "content-type", "origin", REASON_HEADER}
"""Headers with one of a few values."""


def asyncapi_text() -> str:
    return json.dumps(asyncapi_document(), ensure_ascii=False, indent=2) + "\n"


def asyncapi_document() -> dict[str, Any]:
    """AsyncAPI 3.1 with Kafka's bindings; complete in itself."""
    found = [*samples()]
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "taskbridge",
            "version": version("taskbridge-schemas"),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        },
        "servers": {"kafka": _server()},
        "channels": {_camel(topic): _channel(topic, found) for topic in topics.ALL},
        "operations": {f"send{_capital(_camel(topic))}": _operation(topic) for topic in topics.ALL},
        "components": {
            "messages": {sample.message: _message(sample) for sample in found},
            "schemas": {
                topic.record: {"schemaFormat": AVRO, "schema": json.loads(schema_text(topic.record))}
                for topic in topics.ALL
                if topic.record is not None
            },
        },
    }


def _server() -> dict[str, Any]:
    return {
        "host": "{bootstrapServers}",
        "protocol": "kafka",
        "description": "Your Kafka. Default: the one that `taskbridge up` starts.",
        "variables": {"bootstrapServers": {"default": LOCAL_BOOTSTRAP_SERVERS}},
        "bindings": {
            "kafka": {"schemaRegistryUrl": LOCAL_REGISTRY_URL, "schemaRegistryVendor": "confluent", **_BINDING}
        },
    }


def _channel(topic: Topic, found: list[Sample]) -> dict[str, Any]:
    reader, _, summary = _TOPICS[topic.name]
    settings = {name: [value] if name == "cleanup.policy" else int(value) for name, value in topic.settings.items()}
    return {
        "address": topic.name,
        "summary": summary,
        "messages": {
            each.message: {"$ref": f"#/components/messages/{each.message}"} for each in found if each.topic == topic
        },
        "tags": [{"name": reader}],
        "bindings": {
            "kafka": {
                "partitions": topics.DEFAULT_PARTITIONS,
                "topicConfiguration": {"max.message.bytes": topics.USUAL_MESSAGE_BYTES, **settings},
                **_BINDING,
            }
        },
    }


def _operation(topic: Topic) -> dict[str, Any]:
    return {"action": "send", "channel": {"$ref": f"#/channels/{_camel(topic)}"}, "summary": _TOPICS[topic.name][2]}


def _message(sample: Sample) -> dict[str, Any]:
    key = {"type": "string", "description": _TOPICS[sample.topic.name][1], "examples": [sample.key.decode()]}
    if sample.message in _OTHER_MESSAGES:
        text, payload = _OTHER_MESSAGES[sample.message]
        registry = {}
    else:
        text, payload = (
            json.loads(schema_text(sample.message))["doc"],
            {"$ref": f"#/components/schemas/{sample.message}"},
        )
        registry = {
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "schemaLookupStrategy": "TopicNameStrategy",
        }
    headers = {name: value.decode() for name, value in sample.headers}
    example = (
        {"headers": headers} if sample.message == "DeadLetter" else {"headers": headers, "payload": sample.payload}
    )
    return {
        "name": sample.message,
        "summary": text,
        **({"contentType": headers["content-type"]} if "content-type" in headers else {}),
        "headers": _headers(sample),
        "payload": payload,
        "bindings": {"kafka": {"key": key, **registry, **_BINDING}},
        "examples": [example],
    }


def _headers(sample: Sample) -> dict[str, Any]:
    values: dict[str, list[str]] = {}
    for headers in sample.kinds:
        for name, value in headers:
            values.setdefault(name, []).append(value.decode())
    return {
        "type": "object",
        "properties": {name: _header(name, found) for name, found in values.items()},
        "required": [name for name, found in values.items() if len(found) == len(sample.kinds)],
    }


def _header(name: str, values: list[str]) -> dict[str, Any]:
    words = {"enum": [*dict.fromkeys(values)]} if name in _WORDS else {}
    return {"type": "string", "description": _HEADERS[name], **_FORMS.get(name, {}), **words}


def _camel(topic: Topic) -> str:
    first, *others = topic.name.split(".")[1].split("-")
    return first + "".join(map(_capital, others))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
