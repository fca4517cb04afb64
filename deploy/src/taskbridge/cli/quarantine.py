"""The commands ``taskbridge quarantine list|show|replay``: rejected callbacks, which are checked again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import (
    BootstrapServers,
    Credentials,
    DataDir,
    Everything,
    Json,
    RegistryUrl,
    WhichOne,
    WhichOnes,
    example,
    operator_connection,
)
from taskbridge.cli.stored_records import StoredRecords, check_one_way, mark_replayed, print_whole
from taskbridge.cli.terminal import Heartbeat, json_line, progress, say
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from taskbridge.cli.connection import Connection
    from taskbridge.edge.verification.credentials import Credentials as KnownApps
    from taskbridge.edge.verification.replays import FileWindows, Window
    from taskbridge.runtime.producer import AsyncProducer
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import QuarantinedCallback, TaskEvent

# Commands import what they need when they run, as in program.py.

quarantine_app = typer.Typer(help="List, show and replay rejected callbacks.", no_args_is_help=True)

RELEASED, PUBLISHED_BEFORE, REJECTED, FAILED = "released", "already-published", "rejected", "not-delivered"
WOULD_BE_RELEASED = "would-be-released"

_BATCH = 200
_CLOCK_SKEW_MS = 60_000
_RECORDS = StoredRecords(
    none="the quarantine is empty",
    none_for="no quarantined callback has the reason",
    none_with="no quarantined callback has the id {}: list the ids with 'taskbridge quarantine list'",
)


@quarantine_app.command(
    "list", epilog=example("taskbridge quarantine list", "taskbridge quarantine list --reason wrong-sign --json")
)
def list_(
    reason: Annotated[str | None, typer.Option(help="Only those with this reason.")] = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """List the quarantined callbacks in the order of receipt, with the time of their replay."""
    from taskbridge.runtime.quarantined import quarantined_summary

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        found = [quarantined_summary(entry) for entry in read_quarantine(connection, replays)]
    in_order = sorted(found, key=lambda each: (each["received_at"], each["id"]))
    _RECORDS.print_list(in_order, replays, reason, as_json=as_json)


@quarantine_app.command("show", epilog=example("taskbridge quarantine show 0b7f3c1e-6f1d-4c55-9d3c-6a1f2f7f3f10"))
def show(
    quarantine_id: WhichOne,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Print all fields of one callback."""
    from msgspec.structs import asdict

    from taskbridge.cli.connection import json_value
    from taskbridge.schemas.cloudevents import rfc3339

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        found = {each.quarantine_id: each for each in read_quarantine(connection, replays)}
    _RECORDS.check([quarantine_id], found)
    entry = found[quarantine_id]
    shown: dict[str, Any] = {"id": quarantine_id, **json_value(asdict(entry))}
    shown |= {"received_at": rfc3339(entry.received_at), "replayed_at": replays.get(quarantine_id)}
    if as_json:
        say(json_line(shown))
        return
    del shown["quarantine_id"]
    shown["headers"] = dict(sorted(entry.headers.items()))
    print_whole(shown, shown.pop("body"), width=15)


@quarantine_app.command(
    "replay",
    epilog=example(
        "taskbridge quarantine replay --reason wrong-sign",
        "taskbridge quarantine replay --all --dry-run --credentials credentials.toml --data-dir edge-data",
    ),
)
def replay(
    ids: WhichOnes = None,
    reason: Annotated[str | None, typer.Option(help="Select all with this reason.")] = None,
    everything: Everything = False,  # noqa: FBT002
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would happen; publish nothing.")] = False,  # noqa: FBT002
    credentials: Credentials = None,
    delete_extra_keys: Annotated[
        str,
        typer.Option(help="Extra parameters that a delete may have, comma-separated.", envvar="EDGE_DELETE_EXTRA_KEYS"),
    ] = "",
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Check stored callbacks with today's credentials; publish those that pass, with their original time.

    Exit code 1 if any stays rejected. Safe to repeat: an event that is on the topic is not published again.
    """
    check_one_way(ids, reason, everything=everything)
    import asyncio

    from taskbridge.cli.data_folder import data_folder, edge_folder
    from taskbridge.edge.verification.credentials import CredentialsFile

    apps = CredentialsFile(credentials or data_folder(data_dir).credentials).current
    window = _windows(edge_folder(data_dir))
    extra = frozenset(each.strip() for each in delete_extra_keys.split(",")) - {""}
    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        entries = list(read_quarantine(connection, replays))
        chosen = set(_RECORDS.chosen({each.quarantine_id: each.reason for each in entries}, ids, reason))
        judgements = judge(entries, chosen, credentials=apps, delete_extra_keys=extra, known_before=window)
        judgements = leave_out_published(connection, judgements)
        if not dry_run:
            judgements = asyncio.run(release(connection, judgements, replays, window=window))
    for each in judgements:
        say(json_line(each.as_json()) if as_json else _line(each))
    if any(each.stays for each in judgements):
        raise typer.Exit(1)


def _windows(folder: Path) -> FileWindows | None:
    from taskbridge.edge.verification.replays import FileWindows

    windows = FileWindows(folder, entries=None)
    if not windows.open():
        progress(f"no file {windows.path()}: copies are found only within the quarantine; check --data-dir")
        return None
    if windows.problem is not None:
        raise OperatorError(f"{windows.path()}: {windows.problem}")
    return windows


def _line(judgement: Judgement) -> str:
    entry, event = judgement.entry, judgement.event
    detail = judgement.reason or (f"event {event.event_id}" if event else "")
    return f"{judgement.outcome:18}{entry.quarantine_id}  {entry.action}  {detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The outcome for one entry."""

    entry: QuarantinedCallback
    outcome: str
    reason: str | None = None
    """The reason why it is still rejected, or was not delivered."""
    event: TaskEvent | None = None

    @property
    def stays(self) -> bool:
        return self.outcome in (REJECTED, FAILED)

    def as_json(self) -> dict[str, Any]:
        event_id = self.event.event_id if self.event else None
        return {"id": self.entry.quarantine_id, "outcome": self.outcome, "reason": self.reason, "event_id": event_id}


def read_quarantine(connection: Connection, replays: dict[str, str]) -> Iterator[QuarantinedCallback]:
    """Every entry, partition by partition. Undecodable records are reported and skipped.

    ``replays`` receives the time of replay by id.
    """
    from taskbridge.schemas.codec import Undecodable, quarantined_callback_codec
    from taskbridge.schemas.dead_letters import without_replays

    codec = quarantined_callback_codec(connection.registry)
    for message in without_replays(connection.read_to_end(CALLBACKS_QUARANTINE.name, progress=progress), replays):
        try:
            yield codec.decode(message.value())
        except Undecodable as error:
            progress(f"partition {message.partition()}, offset {message.offset()}: {error}")


def judge(
    entries: Iterable[QuarantinedCallback],
    ids: Collection[str],
    *,
    credentials: KnownApps,
    delete_extra_keys: Collection[str],
    known_before: FileWindows | None,
) -> list[Judgement]:
    """Check those with the requested ids, in order of receipt: WOULD_BE_RELEASED if they pass, else REJECTED.

    The others are checked too, because a requested entry may be a copy of an earlier one. Nothing is remembered
    beyond this call.
    """
    from taskbridge.edge.errors import Rejection
    from taskbridge.edge.quarantine import reconsider
    from taskbridge.edge.verification.replays import MemoryWindow

    window = MemoryWindow(known_before)
    judgements: list[Judgement] = []
    for entry in sorted(entries, key=lambda each: (each.received_at, each.quarantine_id)):
        try:
            event = reconsider(entry, credentials=credentials, delete_extra_keys=delete_extra_keys, window=window)
        except Rejection as rejection:
            judgement = Judgement(entry=entry, outcome=REJECTED, reason=rejection.reason)
        else:
            judgement = Judgement(entry=entry, outcome=WOULD_BE_RELEASED, event=event)
        if entry.quarantine_id in ids:
            judgements.append(judgement)
    return judgements


def leave_out_published(connection: Connection, judgements: Sequence[Judgement]) -> list[Judgement]:
    """The same, with PUBLISHED_BEFORE for events that are on the topic already, or twice in the list."""
    from taskbridge.schemas.cloudevents import headers_of

    passed = [each for each in judgements if each.event is not None]
    if not passed:
        return list(judgements)
    since = min(each.entry.received_at for each in passed) - _CLOCK_SKEW_MS
    ids, seen = {_ce_id(each.event) for each in passed}, set[bytes]()
    for message in connection.read_to_end(TASK_EVENTS.name, progress=progress, since_ms=since):
        seen |= ids.intersection(value for name, value in headers_of(message) if name == "ce_id")
    found: list[Judgement] = []
    for judgement in judgements:
        ce_id = _ce_id(judgement.event)
        known = judgement.event is not None and ce_id in seen
        found.append(replace(judgement, outcome=PUBLISHED_BEFORE) if known else judgement)
        seen.add(ce_id)
    return found


def _ce_id(event: TaskEvent | None) -> bytes:
    return event.event_id.encode() if event is not None else b""


async def release(
    connection: Connection,
    judgements: Sequence[Judgement],
    replays: Mapping[str, str],
    *,
    window: Window | None,
) -> list[Judgement]:
    """Publish the events that would be released, as the edge does; returns the outcome of each.

    Entries whose event is on the topic are then marked as replayed, unless ``replays`` has them already.

    Raises:
        RegistryUnavailable: the registry does not answer.
    """
    import asyncio

    from taskbridge.schemas.codec import task_event_codec

    codec = task_event_codec(connection.registry)
    producer = connection.producer()
    heartbeat = Heartbeat(progress)

    async def one(judgement: Judgement) -> Judgement:
        if judgement.outcome != WOULD_BE_RELEASED or judgement.event is None:
            return judgement
        return await _published(producer, codec, judgement, judgement.event, window)

    async def all_of(chosen: Sequence[Judgement]) -> list[Judgement]:
        found = await asyncio.gather(*map(one, chosen))
        published = [each.entry for each in found if each.outcome in (RELEASED, PUBLISHED_BEFORE)]
        await asyncio.gather(
            *(
                mark_replayed(producer, CALLBACKS_QUARANTINE, each.quarantine_id, (each.app_type or "").encode())
                for each in published
                if each.quarantine_id not in replays
            )
        )
        return found

    done: list[Judgement] = []
    try:
        for start in range(0, len(judgements), _BATCH):
            batch = asyncio.ensure_future(all_of(judgements[start : start + _BATCH]))
            while not (await asyncio.wait([batch], timeout=1))[0]:
                heartbeat.beat(f"publishing: {len(done)} of {len(judgements)} done")
            done += batch.result()
            heartbeat.beat(f"publishing: {len(done)} of {len(judgements)} done")
    finally:
        await producer.close()
    return done


async def _published(
    producer: AsyncProducer, codec: Codec[TaskEvent], judgement: Judgement, event: TaskEvent, window: Window | None
) -> Judgement:
    from taskbridge.edge.errors import Rejection
    from taskbridge.edge.verification.replays import refuse_replay
    from taskbridge.runtime.tracing import valid_traceparent
    from taskbridge.schemas.cloudevents import event_headers

    if window is not None:
        try:
            # So that the running edge rejects copies of it from now on.
            refuse_replay(event, window)
        except Rejection as rejection:
            return replace(judgement, outcome=REJECTED, reason=rejection.reason, event=None)
    headers = event_headers(event, traceparent=valid_traceparent(judgement.entry.headers.get("traceparent")))
    key, value = event.instance_id.encode(), codec.encode(event)
    try:
        await producer.produce(TASK_EVENTS.name, key=key, value=value, headers=headers)
    except OperatorError as error:
        return replace(judgement, outcome=FAILED, reason=str(error))
    return replace(judgement, outcome=RELEASED)
