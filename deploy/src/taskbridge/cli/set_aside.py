"""The commands ``taskbridge set-aside list|show|replay``: records that could not be processed or delivered."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path  # noqa: TC003 - typer resolves the parameters' types
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from taskbridge.cli.options import (
    TIMES,
    BootstrapServers,
    Credentials,
    DataDir,
    Json,
    RegistryUrl,
    example,
    moment_of,
    operator_connection,
)
from taskbridge.cli.terminal import json_line, progress, say, stop_signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.cli.stored_records import StoredRecords

set_aside_app = typer.Typer(
    help="List, show and replay records that could not be processed or delivered. These are rejected callbacks"
    " (quarantine), dead letters of streams, records of the edge's spool that Kafka refused, and deliveries of webhooks"
    " that were given up.",
    no_args_is_help=True,
)

ALIASES: Mapping[str, tuple[str, ...]] = {
    **{f"quarantine {verb}": (verb, "quarantine") for verb in ("list", "show", "replay")},
    **{f"dlq {verb}": (verb, "dead-letters") for verb in ("list", "show", "replay")},
    "spool set-aside": ("list", "spool"),
    "spool replay": ("replay", "spool"),
    "webhooks deliveries": ("list", "deliveries", "--outcome", "any"),
    "webhooks replay": ("replay", "deliveries"),
}
"""The names of these commands before, which the program still accepts for one release."""

_ONLY_FOR = {
    **dict.fromkeys(("dry_run", "credentials", "delete_extra_keys"), "quarantine"),
    "force": "dead-letters",
    **dict.fromkeys(("since", "outcome"), "deliveries"),
}
"""Options of ``replay``, and the kind of records that they are for."""
_WIDTH = 15

Kind = Annotated[
    Literal["quarantine", "dead-letters", "spool", "deliveries"],
    typer.Argument(metavar="KIND", help="quarantine, dead-letters, spool or deliveries."),
]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]


@set_aside_app.command(
    "list",
    epilog=example(
        "taskbridge set-aside list quarantine --reason wrong-sign --json",
        "taskbridge set-aside list dead-letters",
        "taskbridge set-aside list spool --data-dir /var/lib/taskbridge",
        "taskbridge set-aside list deliveries --endpoint erp",
    ),
)
def list_(
    kind: Kind,
    reason: Reason = None,
    endpoint: Annotated[str | None, typer.Option(help="Deliveries: only of this endpoint.")] = None,
    outcome: Annotated[
        Literal["waiting", "delivered", "given_up", "replaced", "any"], typer.Option(help="Deliveries: only those.")
    ] = "given_up",
    most: Annotated[int, typer.Option("--max", min=1, metavar="N", help="Deliveries: at most N.")] = 50,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """List the records of one kind in the order of their arrival, with the time of their replay.

    Deliveries are listed with the last answer, the latest first.
    """
    if kind == "deliveries":
        from taskbridge.cli.webhooks import operations
        from taskbridge.webhooks.tables import Outcome

        with operations() as opened:
            wanted = None if outcome == "any" else Outcome[outcome.upper()]
            found, none = list(opened.deliveries(endpoint, wanted, most, problem=reason)), "no deliveries"
    elif kind == "spool":
        from taskbridge.cli import spool_files

        found, none = spool_files.set_aside(spool_files.spool_folder(data_dir)), "nothing is set aside"
    else:
        records = _records(kind)
        with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
            found = records.listed(connection)
        none = records.nothing_for(reason, [each["reason"] for each in found])
    # Of deliveries, the database has selected them.
    is_selected = reason is None or kind == "deliveries"
    shown = found if is_selected else [each for each in found if each["reason"] == reason]
    for each in shown:
        say(json_line(each) if as_json else _line(each))
    if not shown:
        progress(none)


@set_aside_app.command(
    epilog=example("taskbridge set-aside show quarantine 0b7f3c1e-6f1d-4c55-9d3c-6a1f2f7f3f10"),
)
def show(
    kind: Kind,
    entry_id: Annotated[str, typer.Argument(metavar="ID", help="Id, as `list` shows it.")],
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Print all fields of one record."""
    from taskbridge.cli.stored_records import check_ids

    if kind == "deliveries":
        from taskbridge.cli.webhooks import operations

        with operations() as opened:
            entries = {
                str(each["id"]): each for each in opened.deliveries(None, None, 1, delivery_id=_number(entry_id))
            }
    elif kind == "spool":
        from taskbridge.cli import spool_files

        entries = {each["id"]: each for each in spool_files.set_aside(spool_files.spool_folder(data_dir))}
    else:
        with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
            entries = {entry_id: _records(kind).shown(connection, entry_id)}
    check_ids(kind, [entry_id], entries)
    if as_json:
        say(json_line(entries[entry_id]))
    else:
        _print_whole(entries[entry_id])


@set_aside_app.command(
    epilog=example(
        "taskbridge set-aside replay quarantine --reason wrong-sign",
        "taskbridge set-aside replay quarantine --all --dry-run --credentials credentials.toml --data-dir edge-data",
        "taskbridge set-aside replay dead-letters 3-17 3-18",
        "taskbridge set-aside replay spool --data-dir /var/lib/taskbridge",
        "taskbridge set-aside replay deliveries erp 4711",
        "taskbridge set-aside replay deliveries erp --since 2026-09-01",
    )
)
def replay(
    context: typer.Context,
    kind: Kind,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Ids, as `list` shows them. Of deliveries: the endpoint, then ids."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Select all with this reason.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Select all.")] = False,  # noqa: FBT002
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="Quarantine: report what would happen; publish nothing.")
    ] = False,
    credentials: Credentials = None,
    delete_extra_keys: Annotated[
        str,
        typer.Option(
            help="Quarantine: extra parameters that a delete may have, comma-separated.",
            envvar="EDGE_DELETE_EXTRA_KEYS",
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Dead letters: also those older than 30 days.")] = False,  # noqa: FBT002
    since: Annotated[str | None, typer.Option(help=f"Deliveries: all that were added since then. {TIMES}")] = None,
    outcome: Annotated[
        Literal["waiting", "delivered", "given_up", "replaced"], typer.Option(help="With --since: which.")
    ] = "given_up",
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Process or deliver records again, after the cause is fixed. Safe to repeat: each is published once.

    Quarantined callbacks are checked with today's credentials; those that pass are published with their original time.
    Dead letters are published to their original topic; a record that still fails becomes a new dead letter. The edge
    delivers the spool whole. Deliveries wait for their endpoint again. Exit code 1 if any stays rejected or
    undelivered, was too large to store and is gone from its topic, or is a dead letter older than 30 days: later events
    of its task may be gone, and it would be pending again.
    """
    for name, its_kind in _ONLY_FOR.items():
        source = context.get_parameter_source(name)
        if kind != its_kind and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"is for {its_kind} only", param_hint=f"--{name.replace('_', '-')}")
    if kind == "deliveries":
        if reason is not None:
            raise typer.BadParameter("deliveries are selected by ids, --since or --all", param_hint="--reason")
        _replay_deliveries(ids or [], since, outcome, everything=everything, as_json=as_json)
        return
    if kind == "spool":
        if ids or reason is not None or everything:
            raise typer.BadParameter("the spool is delivered whole: give no ids, --reason or --all", param_hint="ID")
        _replay_spool(data_dir, as_json=as_json)
        return
    if sum((bool(ids), reason is not None, everything)) != 1:
        raise typer.BadParameter("select records by exactly one of: ids, --reason R, --all", param_hint="ID")
    from taskbridge.cli import dlq, quarantine
    from taskbridge.cli.data_folder import data_folder, edge_folder

    chosen = partial(_records(kind).chosen, ids=ids, reason=reason, everything=everything)
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        replayed = (
            dlq.replay(connection, chosen, force=force)
            if kind == "dead-letters"
            else quarantine.replay(
                connection,
                credentials or data_folder(data_dir).credentials,
                edge_folder(data_dir),
                chosen,
                delete_extra_keys=frozenset(each.strip() for each in delete_extra_keys.split(",")) - {""},
                dry_run=dry_run,
            )
        )
    for each in replayed:
        say(json_line(each.shown) if as_json else f"{each.shown['outcome']:18}{each.shown['id']}{each.detail}")
    if any(each.failed for each in replayed):
        raise typer.Exit(1)


def _records(kind: str) -> StoredRecords[Any]:
    from taskbridge.cli import dlq, quarantine

    return dlq.RECORDS if kind == "dead-letters" else quarantine.RECORDS


def _replay_spool(data_dir: Path | None, *, as_json: bool) -> None:
    from taskbridge.cli import spool_files

    with stop_signal() as stop:
        left = spool_files.replay(spool_files.spool_folder(data_dir), progress=progress, stopped=stop.is_set)
        is_over = not (left or stop.is_set())
    say(json_line({"left": left}) if as_json else "the spool is empty" if is_over else f"{left} records left")
    if not is_over:
        raise typer.Exit(1)


def _replay_deliveries(
    given: Sequence[str], since: str | None, outcome: str, *, everything: bool, as_json: bool
) -> None:
    from taskbridge.cli.webhooks import operations
    from taskbridge.webhooks.tables import Outcome

    if not given:
        raise typer.BadParameter("name the endpoint", param_hint="ID")
    endpoint, ids = given[0], [_number(each) for each in given[1:]]
    if sum((bool(ids), since is not None, everything)) != 1:
        raise typer.BadParameter("select deliveries by exactly one of: ids, --since, --all", param_hint="ID, --since")
    since_ms = None if since is None else moment_of(since)
    with operations() as opened:
        done = opened.replay(endpoint, ids, since_ms, Outcome[outcome.upper()])
    missing = len(set(ids)) - sum(done) if ids else 0
    if as_json:
        found = {"replayed": done.again, "waiting": done.waiting, "overtaken": done.overtaken, "unknown": missing}
        say(json_line({"id": endpoint, **found}))
        return
    say(f"{done.again} deliveries of {endpoint} wait again")
    if done.waiting:
        say(f"{done.waiting} were waiting, and are due now")
    if done.overtaken:
        say(f"{done.overtaken} are not sent: a later change of the same entry was delivered, or is being sent")
    if missing:
        say(f"{missing} are unknown: {endpoint} has no deliveries with these ids")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"{text} is no id of a delivery", param_hint="ID")
    return int(text)


def _line(summary: Mapping[str, Any]) -> str:
    if "data" in summary:
        said = f"  {summary['problem']}" if summary["problem"] else ""
        what = f"{summary['data']['view']} {summary['data']['change']}"
        return f"{summary['id']:>8}  {summary['at']}  {summary['endpoint']:16}  {summary['outcome']:9}  {what}{said}"
    replayed = [f"replayed at {at}"] if (at := summary.get("replayed_at")) else []
    return "  ".join([*(str(each or "-") for name, each in summary.items() if name != "replayed_at"), *replayed])


def _print_whole(shown: Mapping[str, Any]) -> None:
    """Print one line per field: line breaks are escaped, except in the content at the end."""
    content = {name: each for name, each in shown.items() if name in ("body", "value", "data")}
    fields = [(name, each) for name, each in shown.items() if name != "headers" and name not in content]
    fields += [("header", f"{name}: {each}") for name, each in sorted(shown.get("headers", {}).items())]
    say("\n".join(f"{name:{_WIDTH}} {'-' if each is None else each}".replace("\n", "\\n") for name, each in fields))
    for each in content.values():
        say("\n" + (each if isinstance(each, str) else json.dumps(each, ensure_ascii=False, indent=2)))
