"""Ids that were seen once are known for ever, for exactly the schema that they were given for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from schemas import topics
from schemas.codec import task_event_codec
from schemas.registry import Registry, RegistryUnavailable, SchemaRef

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "http://127.0.0.1:9"


def test_a_restart_without_the_registry_goes_on_with_the_ids_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    known = [SchemaRef.of(topic).key for topic in topics.ALL if topic.record is not None]
    path.write_text(json.dumps({key: number for number, key in enumerate(known, 1)}))
    registry = Registry(NOBODY, ids_path=path)
    assert registry.knows(topics.ALL)
    assert registry.get_schema(1).schema_str is not None
    assert task_event_codec(registry)  # asks nothing when it is made


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": "b"}'])
def test_a_damaged_ids_file_counts_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ids.json"
    path.write_text(content)
    assert not Registry(NOBODY, ids_path=path).knows(topics.ALL)


def test_an_id_of_another_text_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    subject = topics.TASK_EVENTS.subject
    path.write_text(json.dumps({f"{subject}#{'0' * 64}": 7}))
    assert not Registry(NOBODY, ids_path=path).knows([topics.TASK_EVENTS])


def test_no_answer_is_said_as_such() -> None:
    registry = Registry(NOBODY)
    assert not registry.answers()
    with pytest.raises(RegistryUnavailable):
        registry.register([topics.TASK_EVENTS])
    with pytest.raises(RegistryUnavailable):
        registry.get_schema(5)
