"""The native core of the fold: ``streams/native``, in Rust."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from taskbridge.schemas.errors import RecordError
from taskbridge.streams.fold.chunk import Record

class Folded:
    """What a chunk comes to, ready for ``produce_batch``, ``produce`` and the store: ``streams.folding.folding``."""

    @property
    def stored(self) -> dict[bytes, bytes]: ...
    @property
    def changelog(self) -> list[dict[str, Any]]: ...
    @property
    def states(self) -> list[tuple[bytes | None, bytes | None, Any]]: ...
    @property
    def notifications(self) -> list[tuple[bytes | None, bytes | None, Any]]: ...
    @property
    def rejected(self) -> list[tuple[int, RecordError | tuple[str, str]]]:
        """Places among the records, and the error that ``translate`` gave, or the name and the text of one."""
    @property
    def actions(self) -> dict[str, int]: ...
    @property
    def changes(self) -> dict[tuple[str, str], int]: ...
    @property
    def untold(self) -> list[int]:
        """Offsets, see ``streams.folding.folding.Folded``."""
    @property
    def largest(self) -> int: ...

def fold_chunk(
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
    most_told_bytes: int,
) -> Folded:
    """Fold the records in their order: what ``streams.fold.chunk.fold_chunk`` comes to, as it is written.

    ``own_frames`` stand in front of events that our own schema wrote. Any other value, and any that is damaged, is
    given to ``translate``: it answers with the event's Avro body by our own schema, or with why there is none.
    ``load`` is called once and gives the stored forms of instances; one that cannot be read here, ``renew`` gives anew.
    What these three raise, this raises; nothing is changed then.
    """
