"""A record that says what was replayed is told from every entry."""

from __future__ import annotations

from taskbridge.schemas.replays import replay_headers, replay_of, without_replays

AT_MS, AT = 1_769_846_400_000, "2026-01-31T08:00:00.000Z"


class Message:
    def __init__(self, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self._value, self._headers = value, headers

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


def test_it_says_which_entry_was_replayed_and_when() -> None:
    assert replay_of(Message(None, replay_headers("3-17", AT_MS))) == ("3-17", AT)


def test_no_entry_is_taken_for_one() -> None:
    said = replay_headers("3-17", AT_MS)
    # A dead letter has the headers that were received, whatever these are, and its own.
    for entry in (Message(b"", said), Message(None, []), Message(None, [*said, ("dlq_reason", b"undecodable")])):
        assert replay_of(entry) is None


def test_entries_are_read_without_the_replays_and_the_first_of_one_counts() -> None:
    entry = Message(b"entry", [])
    replays: dict[str, str] = {}
    read = [Message(None, replay_headers("1", AT_MS + each)) for each in (0, 1)]
    assert list(without_replays([*read, entry], replays)) == [entry]
    assert replays == {"1": AT}
