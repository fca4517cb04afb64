"""A replay checks entries in order of receipt, releases no copy, and publishes no event twice."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from support.edge.fakes import APP_TYPE, SYSTEM_TOKEN, parameters_of, write_credentials
from taskbridge.cli import quarantine
from taskbridge.cli.connection import Connection
from taskbridge.cli.program import app
from taskbridge.cli.quarantine import judge, leave_out_published
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.replays import FileWindows, refuse_replay
from taskbridge.schemas.events import QuarantinedCallback
from taskbridge.schemas.testing import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CREDENTIALS = parse_credentials(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{SYSTEM_TOKEN}"]')
NOWHERE = Connection("127.0.0.1:9", "http://127.0.0.1:9", {})


def entry(name: str, at: int, wire_action: str = "complete", *, token: str = SYSTEM_TOKEN) -> QuarantinedCallback:
    parameters = signed(parameters_of("complete", instance_id="inst-1"), system_token=token)
    encoded = encode_callback(parameters, "form")
    return QuarantinedCallback(
        quarantine_id=name,
        received_at=at,
        action=wire_action,
        reason="wrong-sign",
        app_type=APP_TYPE,
        remote_address="192.0.2.1",
        method="POST",
        path=f"/yida/tasks/{wire_action}",
        query="",
        headers={"content-type": encoded.headers["Content-Type"]},
        body=encoded.body,
    )


ORIGINAL, COPY, FORGED = entry("original", 1), entry("copy", 2, "cancel"), entry("forged", 3, token="forged")


def outcomes(
    *entries: QuarantinedCallback, wanted: set[str] | None = None, known: FileWindows | None = None
) -> dict[str, str | None]:
    judgements = judge(
        entries,
        {each.quarantine_id for each in entries} if wanted is None else wanted,
        credentials=CREDENTIALS,
        delete_extra_keys=(),
        known_before=known,
    )
    return {each.entry.quarantine_id: each.reason for each in judgements}


def test_the_original_is_released_and_the_copy_and_the_forged_one_are_not() -> None:
    expected = {"original": None, "copy": "cross-action-replay", "forged": "wrong-sign"}
    found = outcomes(FORGED, COPY, ORIGINAL)
    assert found == expected
    assert list(found) == list(expected)


def test_a_copy_is_not_released_when_only_the_copy_is_requested() -> None:
    assert outcomes(FORGED, COPY, ORIGINAL, wanted={"copy"}) == {"copy": "cross-action-replay"}


def test_a_copy_of_what_the_edge_accepted_is_not_released(tmp_path: Path) -> None:
    window = FileWindows(tmp_path, entries=64)
    (released,) = judge([ORIGINAL], ["original"], credentials=CREDENTIALS, delete_extra_keys=(), known_before=window)
    assert outcomes(COPY, known=window) == {"copy": None}  # judging alone remembers nothing
    assert released.event is not None
    refuse_replay(released.event, window)
    assert outcomes(COPY, known=window) == {"copy": "cross-action-replay"}
    assert outcomes(ORIGINAL, known=window) == {"original": None}
    window.close()


class Message:
    def __init__(self, event_id: str) -> None:
        self._event_id = event_id

    def headers(self) -> list[tuple[str, bytes]]:
        return [("ce_type", b"x"), ("ce_id", self._event_id.encode())]


@pytest.mark.parametrize("on_the_topic", [True, False])
def test_published_and_repeated_events_are_not_published_again(
    monkeypatch: pytest.MonkeyPatch, *, on_the_topic: bool
) -> None:
    again = replace(ORIGINAL, quarantine_id="again", received_at=200_000)
    judgements = judge(
        [ORIGINAL, again, FORGED],
        ["original", "again", "forged"],
        credentials=CREDENTIALS,
        delete_extra_keys=(),
        known_before=None,
    )
    event = judgements[0].event
    assert event is not None
    asked: list[Any] = []

    def read(_: object, topic: str, **options: Any) -> Iterator[Message]:
        asked.append((topic, options["since_ms"]))
        return iter([Message("another"), *([Message(event.event_id)] if on_the_topic else [])])

    monkeypatch.setattr(Connection, "read_to_end", read)
    found = {each.entry.quarantine_id: each.outcome for each in leave_out_published(NOWHERE, judgements)}
    first = "already-published" if on_the_topic else "would-be-released"
    assert found == {"original": first, "again": "already-published", "forged": "rejected"}
    assert asked == [("taskbridge.task-events.v1", 1 - 60_000)]


class Broker:
    """Records what is published."""

    def __init__(self, *_: object) -> None:
        PUBLISHED.clear()

    async def produce(self, topic: str, *, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        PUBLISHED.append((topic, key, value, headers))

    async def close(self) -> None: ...


PUBLISHED: list[tuple[str, bytes, bytes | None, list[tuple[str, bytes]]]] = []


@pytest.mark.parametrize("marked_before", [True, False])
def test_only_published_entries_are_marked_once_as_replayed(
    monkeypatch: pytest.MonkeyPatch, *, marked_before: bool
) -> None:
    monkeypatch.setattr(Connection, "producer", Broker)
    monkeypatch.setattr(Connection, "registry", FakeRegistry())
    entries = [ORIGINAL, FORGED, replace(ORIGINAL, quarantine_id="again", received_at=4, app_type=None)]
    ids = [each.quarantine_id for each in entries]
    judged = judge(entries, ids, credentials=CREDENTIALS, delete_extra_keys=(), known_before=None)
    right = [
        dataclasses.replace(each, outcome="already-published") if each.entry is entries[2] else each for each in judged
    ]
    replays = {"again": "2026-01-31T08:00:00.000Z"} if marked_before else {}
    done = asyncio.run(quarantine.release(NOWHERE, right, replays, window=None))
    assert [each.outcome for each in done] == ["released", "rejected", "already-published"]
    marks = [(topic, key, headers[0]) for topic, key, value, headers in PUBLISHED if value is None]
    expected = [("taskbridge.callbacks-quarantine.v1", APP_TYPE.encode(), ("replay_of", b"original"))]
    if not marked_before:
        expected.append(("taskbridge.callbacks-quarantine.v1", b"", ("replay_of", b"again")))
    assert sorted(marks, reverse=True) == expected
    assert len(PUBLISHED) == 1 + len(expected)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[QuarantinedCallback]:
    entries: list[QuarantinedCallback] = []

    def read(_: object, replays: dict[str, str]) -> Iterator[QuarantinedCallback]:
        replays["copy"] = "2026-01-31T08:00:00.000Z"
        return iter(entries)

    monkeypatch.setattr(quarantine.RECORDS, "read", read)
    return entries


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["quarantine", *arguments])


def test_control_characters_of_callbacks_do_not_reach_the_terminal(entries: list[QuarantinedCallback]) -> None:
    evil = "\x1b[2J\x9b\r\nheader          forged: line\x07"
    entries.append(replace(ORIGINAL, query=evil, headers={"x": evil}, body=evil.encode()))
    for flags in ((), ("--json",)):
        shown = cast("str", run("show", "original", *flags).stdout)
        assert not {"\x1b", "\x9b", "\r", "\x07"} & set(shown)
    assert json.loads(run("show", "original", "--json").stdout)["body"] == evil
    text = run("show", "original").stdout
    head, _, body = text.partition("\n\n")
    assert len([line for line in head.splitlines() if line.startswith("header")]) == 1
    assert "forged: line" in body


@pytest.mark.parametrize(
    "arguments",
    [(), ("id", "--all"), ("--all", "--reason", "r"), ("id", "--reason", "r"), ("id", "--reason", "r", "--all")],
)
def test_a_replay_takes_ids_or_a_reason_or_all(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_credentials(tmp_path / "c.toml", SYSTEM_TOKEN)
    assert run("replay", *arguments, "--credentials", str(tmp_path / "c.toml")).exit_code == 2


def test_a_new_token_replays_nothing_twice_and_so_reads_no_events(
    tmp_path: Path, entries: list[QuarantinedCallback], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> Iterator[Message]:
        pytest.fail("events since the first replay may be those of a week")

    monkeypatch.setattr(Connection, "read_to_end", read)
    write_credentials(tmp_path / "c.toml", SYSTEM_TOKEN)
    entries += [COPY, FORGED]
    assert quarantine.replay_apps(NOWHERE, tmp_path / "c.toml", tmp_path, [APP_TYPE]) == 0
