"""The commands ``taskbridge quarantine list|show|replay``: options, help and output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.kept import Kept, check_one_way, print_whole
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
from taskbridge.cli.terminal import json_line, progress, say

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.cli.quarantine.callbacks import Judgement
    from taskbridge.edge.verification.replays import FileWindows

# Commands import what they need when they run, as in program.py.

quarantine_app = typer.Typer(help="List, show and replay rejected callbacks.", no_args_is_help=True)

_KEPT = Kept(
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
    from taskbridge.cli.quarantine.callbacks import read_quarantine
    from taskbridge.runtime.quarantined import quarantined_summary

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        found = [quarantined_summary(entry) for entry in read_quarantine(connection, progress, replays)]
    in_order = sorted(found, key=lambda each: (each["received_at"], each["id"]))
    _KEPT.print_list(in_order, replays, reason, as_json=as_json)


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

    from taskbridge.cli.quarantine.callbacks import read_quarantine
    from taskbridge.cli.topics.tail import json_value
    from taskbridge.schemas.cloudevents import rfc3339

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        found = {each.quarantine_id: each for each in read_quarantine(connection, progress, replays)}
    _KEPT.check([quarantine_id], found)
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
    from taskbridge.cli.quarantine.callbacks import judge, leave_out_published, read_quarantine, release
    from taskbridge.edge.verification.credentials import CredentialsFile

    apps = CredentialsFile(credentials or data_folder(data_dir).credentials).current
    window = _windows(edge_folder(data_dir))
    extra = frozenset(each.strip() for each in delete_extra_keys.split(",")) - {""}
    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        entries = list(read_quarantine(connection, progress, replays))
        chosen = set(_KEPT.chosen({each.quarantine_id: each.reason for each in entries}, ids, reason))
        judgements = judge(entries, chosen, credentials=apps, delete_extra_keys=extra, known_before=window)
        judgements = leave_out_published(connection, judgements, progress)
        if not dry_run:
            judgements = asyncio.run(release(connection, judgements, replays, window=window, progress=progress))
    for each in judgements:
        say(json_line(each.as_json()) if as_json else _line(each))
    if any(each.stays for each in judgements):
        raise typer.Exit(1)


def _windows(folder: Path) -> FileWindows | None:
    from taskbridge.edge.verification.replays import FileWindows
    from taskbridge.schemas.errors import OperatorError

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
