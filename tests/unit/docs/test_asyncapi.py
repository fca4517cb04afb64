"""The AsyncAPI document names every topic, header and field, and is enough to read our bytes by."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import fastavro
import jsonschema_rs
import pytest

import reference
from reference_pages import asyncapi
from reference_pages.samples import samples
from taskbridge.schemas import topics
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from reference_pages.samples import Sample

DOCUMENT = json.loads((reference.DOCS / "reference" / "asyncapi.json").read_text("utf-8"))
MESSAGES = DOCUMENT["components"]["messages"]
SAMPLES = [*samples()]


def resolved(found: Any) -> Any:
    """What a reference within the document leads to."""
    return reduce(lambda part, name: part[name], found["$ref"].removeprefix("#/").split("/"), DOCUMENT)


def test_every_topic_is_named_with_its_settings_and_messages() -> None:
    named = {each["address"]: each for each in DOCUMENT["channels"].values()}
    assert named.keys() == {each.name for each in topics.ALL}
    for topic in topics.ALL:
        configuration = named[topic.name]["bindings"]["kafka"]["topicConfiguration"]
        for name, value in topic.settings.items():
            assert str(configuration[name]).strip("[']") == value
        assert topic.record is None or topic.record in named[topic.name]["messages"]


def test_every_operation_is_of_a_channel_and_every_channel_has_one() -> None:
    assert [each["channel"]["$ref"] for each in DOCUMENT["operations"].values()] == [
        f"#/channels/{name}" for name in DOCUMENT["channels"]
    ]


@pytest.mark.parametrize("record", [each.record for each in topics.ALL if each.record])
def test_every_field_is_there_and_says_what_it_means(record: str) -> None:
    schema = DOCUMENT["components"]["schemas"][record]["schema"]
    assert schema == json.loads(schema_text(record))
    named: list[dict[str, Any]] = []
    json.loads(json.dumps(schema), object_hook=lambda found: named.append(found) if "name" in found else None)
    assert len(named) > 3
    assert [each["name"] for each in named if not each.get("doc")] == []


def test_every_header_that_the_code_names_is_there() -> None:
    folder = reference.DOCS.parent / "schemas" / "src" / "taskbridge" / "schemas"
    sources = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    named = set(
        re.findall(r'"(ce_[a-z]+|dlq_[a-z_]*[a-z]|replay_of|replayed_at|traceparent|content-type|origin)"', sources)
    )
    assert len(named) > 15
    assert named == {name for each in MESSAGES.values() for name in each["headers"]["properties"]}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda each: each.message)
def test_headers_are_within_their_schema(sample: Sample) -> None:
    schema = MESSAGES[sample.message]["headers"]
    validator = jsonschema_rs.Draft7Validator(schema, validate_formats=True)
    for kind in [sample.headers, *sample.kinds]:
        found = {name: value.decode() for name, value in kind}
        validator.validate(found)
        assert found.keys() <= schema["properties"].keys()
    validator.validate(MESSAGES[sample.message]["examples"][0]["headers"])


@pytest.mark.parametrize(
    "sample", [each for each in SAMPLES if each.payload is not None], ids=lambda each: each.message
)
def test_our_bytes_are_read_by_the_document_alone_and_say_what_its_example_says(sample: Sample) -> None:
    message = MESSAGES[sample.message]
    payload = resolved(message["payload"])
    assert payload["schemaFormat"] == "application/vnd.apache.avro+json;version=1.9.0"
    assert message["bindings"]["kafka"]["schemaIdPayloadEncoding"] == "confluent"
    assert sample.value is not None
    frame, body = sample.value[:5], io.BytesIO(sample.value[5:])
    assert frame[0] == 0
    schema = fastavro.parse_schema(json.loads(json.dumps(payload["schema"]), object_hook=without_logical_types))
    found: Any = fastavro.schemaless_reader(body, schema, None)
    assert body.read() == b""
    text = {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in found.items()}
    assert text == message["examples"][0]["payload"]


def without_logical_types(found: dict[str, Any]) -> dict[str, Any]:
    """Moments as the numbers that they are written as."""
    return {name: each for name, each in found.items() if name != "logicalType"}


def another_field(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(record: str) -> str:
        schema = json.loads(schema_text(record))
        schema["fields"].append({"name": "more", "type": ["null", "string"], "default": None, "doc": "More."})
        return json.dumps(schema)

    monkeypatch.setattr(asyncapi, "schema_text", changed)


def another_header(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, *others = SAMPLES
    changed = replace(sample, kinds=[*sample.kinds, [*sample.headers, ("ce_reason", b"why")]])
    monkeypatch.setattr(asyncapi, "samples", lambda: [changed, *others])


def other_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "DEFAULT_PARTITIONS", 24)


def another_retention(monkeypatch: pytest.MonkeyPatch) -> None:
    longer = replace(topics.TASK_EVENTS, settings={**topics.TASK_EVENTS.settings, "retention.ms": "1"})
    monkeypatch.setattr(topics, "ALL", (longer, *topics.ALL[1:]))


@pytest.mark.parametrize("change", [another_field, another_header, other_partitions, another_retention])
def test_a_change_that_is_not_in_the_document_fails_the_check(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "reference/asyncapi.json"
    monkeypatch.setattr(reference, "PAGES", {name: reference.PAGES[name]})
    assert reference.stale() == []
    change(monkeypatch)
    with pytest.raises(SystemExit, match=f"{name} differ from the code"):
        reference.main(["--check"])
