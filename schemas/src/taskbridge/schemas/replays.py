"""Records without a value that say: this entry of the quarantine, or this dead letter, was replayed.

They are on the entry's own topic, with its key, and outlive it there. A reader that does not know them finds nothing
that it could decode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from taskbridge.schemas.cloudevents import rfc3339
from taskbridge.schemas.headers import WithHeaders, headers_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from taskbridge.schemas.cloudevents import Header

REPLAY_OF_HEADER, REPLAYED_AT_HEADER = "replay_of", "replayed_at"


class Replay(NamedTuple):
    """Which entry was replayed, and when, as RFC 3339."""

    entry_id: str
    at: str


class Message(WithHeaders, Protocol):
    """A message of confluent_kafka, for who does not import that."""

    def value(self) -> bytes | None: ...


M = TypeVar("M", bound=Message)


def replay_headers(entry_id: str, at_ms: int) -> list[Header]:
    return [(REPLAY_OF_HEADER, entry_id.encode()), (REPLAYED_AT_HEADER, rfc3339(at_ms).encode())]


def replay_of(message: Message) -> Replay | None:
    """None for every other record, also for a dead letter that was received with such headers: it has more."""
    if message.value() is None:
        match headers_of(message):
            case [(name, entry_id), (other, at)] if (name, other) == (REPLAY_OF_HEADER, REPLAYED_AT_HEADER):
                return Replay(text_of(entry_id) or "", text_of(at) or "")
            case _:
                pass
    return None


def without_replays(messages: Iterable[M], replays: dict[str, str]) -> Iterator[M]:
    """The entries alone; ``replays`` gets, by ids, when each of them was replayed for the first time."""
    for message in messages:
        replay = replay_of(message)
        if replay is None:
            yield message
        else:
            replays.setdefault(replay.entry_id, replay.at)
