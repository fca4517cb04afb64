"""Group metadata has the bytes of librdkafka itself."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer

from taskbridge.streams.transactions.bulk_producer import Membership, group_metadata, read_group_metadata


@pytest.mark.parametrize("instance_id", [None, "worker-1"])
def test_group_metadata_has_the_bytes_of_a_consumer_that_has_not_joined(instance_id: str | None) -> None:
    config = {"bootstrap.servers": "127.0.0.1:9", "group.id": "group"}
    if instance_id is not None:
        config["group.instance.id"] = instance_id
    consumer = cast("Any", Consumer(cast("Any", config)))
    assert group_metadata("group", Membership(-1, "", instance_id)) == consumer.consumer_group_metadata()
    consumer.close()


@pytest.mark.parametrize("instance_id", [None, "worker-1"])
def test_group_metadata_is_read_as_it_was_written(instance_id: str | None) -> None:
    member = Membership(7, "member-1", instance_id)
    assert read_group_metadata(group_metadata("group", member)) == ("group", member)
