"""The native core of both services: ``native``, in Rust."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias, overload

from taskbridge.schemas.cloudevents import Header
from taskbridge.schemas.errors import RecordError
from taskbridge.streams.records import Record, RecordWithHeaders

Found: TypeAlias = tuple[str, str, bytes, list[Header], bytes, bytes, int]
"""What ``taskbridge.edge.decided.Decided`` is made of.

The event's id, the app, the record's key, its headers, its Avro body without the frame, the digest that signed it, and
the place among the app's tokens of the one that signed.
"""

class Edge:
    """What decides callbacks, for the apps and tokens of one moment, with the figures and headers that Python has."""

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
        """``apps``: the tokens of each, with the organisation that each is for. ``event_types``: by action."""

    def decide(
        self, wire_action: str, query: bytes, content_type: str | None, body: bytes, received_at: int, /
    ) -> Found | None:
        """None where Python has to decide."""

    def decide_whole(self, request: bytes, received_at: int, /) -> tuple[str, str | None, str | None, Found] | None:
        """Of all bytes of a request: its action, X-Forwarded-For, traceparent, and what ``decide`` says of the rest."""

class EncodedRecords(Sequence[RecordWithHeaders]):
    """Records as Kafka stores them, without what their place in a batch decides; each is decoded when it is asked for.

    ``streams.encoded_records`` has the same in Python.
    """

    def __init__(self, records: Iterable[RecordWithHeaders], /) -> None: ...
    @overload
    def __getitem__(self, at: int, /) -> RecordWithHeaders: ...
    @overload
    def __getitem__(self, at: slice, /) -> Sequence[RecordWithHeaders]:
        """No slices: a sequence's type has them."""
    def __len__(self) -> int: ...
    @property
    def value_bytes(self) -> int: ...
    def split(self, partitions: int, /) -> list[tuple[int, EncodedRecords]]:
        """Those of each partition of so many, in their order, by murmur2 of their keys; without a key, any."""

class FetchedRecord:
    """A record as aiokafka's ``ConsumerRecord`` has it. Its headers are decoded when they are asked for."""

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

def read_batch(data: bytes, begin: int, end: int, topic: str, partition: int, /) -> list[FetchedRecord] | None:
    """The records of a batch that stands there in what was fetched, which has its checksum.

    None where it is aiokafka's to read or to refuse: packed, a marker, of an older format, or damaged.
    """

class BatchBuilder:
    """Fills a record batch of a transaction: ``streams.engine.producing.record_batches`` has the same in Python."""

    def __init__(self, codec: int, producer_id: int, epoch: int, sequence: int, most_bytes: int, /) -> None:
        """``most_bytes``: before it is packed. The first record may be more."""

    def extend(self, records: EncodedRecords, begin: int, now_ms: int, /) -> int:
        """How many of them were taken, from ``begin`` on, until it is full."""

    def build(self, pack: Callable[[bytes], bytes] | None, /) -> bytearray:
        """The batch, its records packed as its codec says. Once."""

class Folded:
    """What a chunk comes to, ready for Kafka and the store: ``streams.cores.core``."""

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
        """Of each notification, the offset of the record that it comes of."""
    @property
    def rejected(self) -> list[tuple[int, RecordError | tuple[int, list[str]]]]:
        """Places among the records; the error of ``translate``, or a ``Refusal``'s place and what it is about."""
    @property
    def actions(self) -> list[int]:
        """How many of each, in the order of the schema's symbols."""
    @property
    def changes(self) -> list[list[int]]:
        """By view, by change; neither has its UNKNOWN."""
    @property
    def untold(self) -> list[int]:
        """Offsets, see ``streams.cores.core.Folded``."""
    @property
    def largest(self) -> int: ...

class Core:
    """The fold, with the figures and the headers that Python has: both implementations go by the same."""

    def __init__(
        self,
        *,
        id_characters: int,
        moments: tuple[int, int],
        ahead_ms: int,
        offsets: int,
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
        told_bytes: int,
        form_fields: AbstractSet[str],
    ) -> Folded:
        """Fold the records in their order: what ``streams.fold.chunk.fold_chunk`` comes to, as it is written.

        ``own_frames`` stand in front of events that our own schema wrote. Any other value, and any that is damaged, is
        given to ``translate``: it answers with the event's Avro body by our own schema, or with why there is none.
        ``load`` is called once and gives the stored forms of instances; one that cannot be read here, ``renew`` gives
        anew. What these three raise, this raises; nothing is changed then.
        """

    def lines(
        self, values: list[bytes], view: str, source: str, name_of: Callable[[str], str | None], /
    ) -> bytes | None:
        """A JSON array of these lines, which are as stored: what ``streams.api.json_forms.item_json`` comes to.

        ``source``: of those that say none. None where one cannot be read here: another version's, or damage. What
        ``name_of`` raises, this raises.
        """
