"""A membership of the consumer group as librdkafka's producer takes it, though the member is aiokafka.

The layout is that of ``rd_kafka_consumer_group_metadata_write`` (librdkafka 2.0 and later, format 2), which a
``confluent_kafka.Consumer`` gives for itself only.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_MAGIC = b"CGMDv2:"


class Membership(NamedTuple):
    """What the group's coordinator knows a member by. It refuses offsets of any but the present generation."""

    generation: int
    member_id: str
    instance_id: str | None


def group_metadata(group: str, membership: Membership) -> bytes:
    """For ``Producer.send_offsets_to_transaction``.

    Raises:
        UnicodeEncodeError: a name is not ASCII; librdkafka takes no other.
    """
    instance_id = membership.instance_id
    return b"".join(
        (
            _MAGIC,
            struct.pack("=i", membership.generation),
            _text(group),
            _text(membership.member_id),
            b"\x01" if instance_id is None else b"\x00" + _text(instance_id),
        )
    )


def read_group_metadata(metadata: bytes) -> tuple[str, Membership]:
    """The group and the member: the other way round."""
    [generation] = struct.unpack_from("=i", metadata, len(_MAGIC))
    group, member_id, instance_id = metadata[len(_MAGIC) + 4 :].split(b"\0", 2)
    # What comes before an instance's id tells whether there is one.
    named = None if instance_id == b"\x01" else instance_id.strip(b"\0").decode("ascii")
    return group.decode("ascii"), Membership(generation, member_id.decode("ascii"), named)


def _text(name: str) -> bytes:
    return name.encode("ascii") + b"\0"
