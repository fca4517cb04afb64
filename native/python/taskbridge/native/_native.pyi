"""The native core of both services: ``native``, in Rust."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias, overload

from taskbridge.schemas.cloudevents import Header
from taskbridge.schemas.errors import RecordError
from taskbridge.streams.records import Record, RecordWithHeaders

Found: TypeAlias = tuple[str, str, bytes, list[Header], bytes, bytes, int]
"""The parts of ``taskbridge.edge.events.Decided``.

The event's id, the app, the record's key, its headers, its Avro body without the frame, the signature's digest, and the
index of the app's token that signed.
"""

class Edge:
    """Decides callbacks by these apps and tokens, with the limits and headers that Python defines."""

    def __init__(
        self,
        apps: Mapping[str, Sequence[tuple[str | None, str]]],
        *,
        id_characters: int,
        ahead_ms: int,
        id_namespace: bytes,
        specversion: Header,
        content_type: Header,
        event_types: Sequence[Header],
    ) -> None:
        """``apps``: the tokens of each app, with the organisation of each token. ``event_types``: by action."""

    def decide(
        self, wire_action: str, query: bytes, content_type: str | None, body: bytes, received_at: int, /
    ) -> Found | None:
        """None where Python decides."""

class EncodedRecords(Sequence[RecordWithHeaders]):
    """Records as Kafka stores them, without the parts that depend on their place in a batch; decoded on access.

    ``streams.records`` has the same in Python.
    """

    def __init__(self, records: Iterable[RecordWithHeaders], /) -> None: ...
    @overload
    def __getitem__(self, at: int, /) -> RecordWithHeaders: ...
    @overload
    def __getitem__(self, at: slice, /) -> Sequence[RecordWithHeaders]:
        """Raises TypeError: only the type of a sequence has slices."""
    def __len__(self) -> int: ...
    @property
    def value_bytes(self) -> int: ...
    def split(self, partitions: int, /) -> list[tuple[int, EncodedRecords]]:
        """The records of each of the partitions, in their order: by murmur2 of the key, or any without a key."""

class FetchedRecord:
    """A record with the attributes of aiokafka's ``ConsumerRecord``. Its headers are decoded on access."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    checksum: None
    serialized_key_size: int
    serialized_value_size: int
    headers: tuple[tuple[str, bytes | None], ...]

def read_request(data: bytes, /) -> tuple[str, dict[str, str], bytes] | None:
    """The path, the headers (in lower case) and the body of exactly one plain POST; None where httptools parses."""

def read_batch(data: bytes, begin: int, end: int, topic: str, partition: int, /) -> list[FetchedRecord] | None:
    """The records of the batch in ``data[begin:end]``, whose checksum is verified.

    None where aiokafka has to read or reject it: compressed, a transaction's marker, of an older format, or damaged.
    """

class BatchBuilder:
    """Fills a record batch of a transaction: ``streams.engine.transaction_requests`` has the same in Python."""

    def __init__(self, codec: int, producer_id: int, epoch: int, sequence: int, max_bytes: int, /) -> None:
        """``max_bytes``: before compression. The first record may be larger."""

    def extend(self, records: EncodedRecords, begin: int, now_ms: int, /) -> int:
        """Append records from ``begin`` on until the batch is full, and return how many were appended."""

    def build(self, pack: Callable[[bytes], bytes] | None, /) -> bytearray:
        """The batch, whose records ``pack`` compresses by its codec. Call it once."""

class Folded:
    """The result of a chunk, ready for Kafka and the store: ``streams.fold.core``."""

    @property
    def stored(self) -> dict[bytes, bytes]: ...
    @property
    def changelog(self) -> EncodedRecords: ...
    @property
    def states(self) -> EncodedRecords: ...
    @property
    def notifications(self) -> EncodedRecords: ...
    @property
    def causes(self) -> list[int]:
        """The offset of each notification's event."""
    @property
    def rejected(self) -> list[tuple[int, RecordError | tuple[int, list[str]]]]:
        """Indexes of records, with the error of ``translate``, or the index of a ``Refusal`` and its values."""
    @property
    def actions(self) -> list[int]:
        """Folded events by action, in the order of the schema's symbols."""
    @property
    def changes(self) -> list[list[int]]:
        """Notifications by view and change, both without UNKNOWN."""
    @property
    def unpublished(self) -> list[int]:
        """Offsets of events with more than ``max_published_bytes``, whose notifications are incomplete."""
    @property
    def largest(self) -> int: ...

class Core:
    """The fold, with the limits and headers that Python defines."""

    def __init__(
        self,
        *,
        id_characters: int,
        moments: tuple[int, int],
        ahead_ms: int,
        form_bytes: int,
        every_field: str,
        id_namespace: bytes,
        specversion: Header,
        content_type: Header,
        notification_types: list[Header],
        state_changed: Header,
        state_deleted: Header,
    ) -> None:
        """``notification_types``: by change, in the order of the schema's symbols."""

    def fold(
        self,
        records: list[Record],
        *,
        own_frames: list[bytes],
        translate: Callable[[bytes | None], bytes | RecordError],
        load: Callable[[list[bytes]], list[bytes | None]],
        renew: Callable[[bytes], bytes],
        state_frame: bytes,
        notification_frame: bytes,
        now_ms: int,
        too_large: AbstractSet[int],
        max_published_bytes: int,
        form_fields: AbstractSet[str],
    ) -> Folded:
        """Fold the records in their order, with the result of ``streams.fold.chunk.fold_chunk``, encoded.

        Events of our own schema begin with one of ``own_frames``. All other values, and damaged ones, are given to
        ``translate``, which returns the event's Avro body by our own schema, or an error. ``load`` is called once, and
        returns the stored forms of instances. ``renew`` converts stored forms that cannot be read here. An exception of
        these three is raised here, and then nothing has changed.
        """
