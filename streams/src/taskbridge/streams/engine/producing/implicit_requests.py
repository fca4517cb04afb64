"""The requests of Kafka's second transaction protocol (KIP-890, ``transaction.version`` 2).

Brokers tell the coordinator by themselves of partitions and offsets that a transaction comes to, and each transaction
has an epoch of its own, which the end of the one before gives out.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
    UnsignedVarInt32,
)

from taskbridge.streams.engine.producing.transaction_requests import (
    ALL_IN_SYNC,
    OFFSETS_REQUEST,
    OFFSETS_RESPONSE,
    Identity,
    Topics,
    TxnOffsetCommit,
)

FEATURE, SECOND_PROTOCOL = "transaction.version", 2
_FINALIZED = 2
"""The tag of the features that a cluster has."""


class _ApiVersionsResponse(Response):
    API_KEY = 18  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType] - as aiokafka does it
    API_VERSION = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = Schema(
        ("error_code", Int16),
        ("api_versions", CompactArray(("key", Int16), ("least", Int16), ("most", Int16), ("tags", TaggedFields))),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class _ApiVersionsRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 18
    API_VERSION = 3
    RESPONSE_TYPE = _ApiVersionsResponse
    SCHEMA = Schema(("software", CompactString()), ("version", CompactString()), ("tags", TaggedFields))

    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v0:
        # The one answer whose header never has tags.
        return ResponseHeader_v0.decode(read_buffer)


class Features(Request[_ApiVersionsRequest]):
    """What the cluster can, beside its requests' versions."""

    API_KEY = 18

    def build(self, request_struct_class: type[_ApiVersionsRequest]) -> _ApiVersionsRequest:
        return request_struct_class("taskbridge", "1", {})


_FEATURES = CompactArray(("name", CompactString()), ("most", Int16), ("least", Int16), ("tags", TaggedFields))


def has_second_protocol(answer: Any) -> bool:
    """By what the whole cluster has agreed upon, not by what one broker can."""
    finalized = answer.tags.get(_FINALIZED)
    features = [] if finalized is None else _FEATURES.decode(BytesIO(finalized)) or []
    return any(name == FEATURE and most >= SECOND_PROTOCOL for name, most, *_ in features)


class _ProduceResponse(Response):
    API_KEY = 0  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    API_VERSION = 12  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic", CompactString()),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("offset", Int64),
                        ("timestamp", Int64),
                        ("log_start_offset", Int64),
                        (
                            "record_errors",
                            CompactArray(("index", Int32), ("message", CompactString()), ("tags", TaggedFields)),
                        ),
                        ("error_message", CompactString()),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class _ProduceRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 0
    API_VERSION = 12
    RESPONSE_TYPE = _ProduceResponse
    SCHEMA = Schema()

    def __init__(self, transactional_id: str, timeout_ms: int, topics: Topics) -> None:
        super().__init__()
        text, length = CompactString().encode, UnsignedVarInt32.encode
        parts: list[bytes | bytearray] = [
            text(transactional_id),
            Int16.encode(ALL_IN_SYNC),
            Int32.encode(timeout_ms),
            length(len(topics) + 1),
        ]
        for topic, partitions in topics:
            parts += text(topic), length(len(partitions) + 1)
            for partition, records in partitions:
                parts += Int32.encode(partition), length(len(records) + 1), records, _NO_TAGS
            parts.append(_NO_TAGS)
        self._parts = [*parts, _NO_TAGS]

    def encode(self) -> bytes:
        return b"".join(self._parts)


_NO_TAGS = b"\0"


class ImplicitProduce(Request[_ProduceRequest]):
    """As ``Produce``; its partitions become part of the transaction."""

    API_KEY = 0

    def __init__(self, transactional_id: str, timeout_ms: int, topics: Topics) -> None:
        self._arguments = transactional_id, timeout_ms, topics
        self.topics = topics

    def build(self, request_struct_class: type[_ProduceRequest]) -> _ProduceRequest:
        return request_struct_class(*self._arguments)


class _OffsetsResponse(Response):
    API_KEY = 28  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    API_VERSION = 5  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = OFFSETS_RESPONSE


class _OffsetsRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 28
    API_VERSION = 5
    RESPONSE_TYPE = _OffsetsResponse
    SCHEMA = OFFSETS_REQUEST


class ImplicitOffsets(TxnOffsetCommit):
    """The same; the group becomes part of the transaction."""

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:  # noqa: ARG002 - what the cluster has, all brokers can
        return self.build(_OffsetsRequest)


class _EndResponse(Response):
    API_KEY = 26  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    API_VERSION = 5  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _EndRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 26
    API_VERSION = 5
    RESPONSE_TYPE = _EndResponse
    SCHEMA = Schema(
        ("transactional_id", CompactString()),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("committed", Boolean),
        ("tags", TaggedFields),
    )


class EndWithEpoch(Request[_EndRequest]):
    """The end of a transaction; the answer has the identity of the next one."""

    API_KEY = 26

    def __init__(self, of: Identity, *, commit: bool) -> None:
        self._arguments = *of, commit, dict[int, bytes]()

    def build(self, request_struct_class: type[_EndRequest]) -> _EndRequest:
        return request_struct_class(*self._arguments)
