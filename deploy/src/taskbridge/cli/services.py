"""The commands that run one service: ``taskbridge edge``, ``streams``, ``center``, ``dingtalk-approvals``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import Json, example
from taskbridge.cli.terminal import Heartbeat, counted, json_line, progress, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.center.access.audit import Logged


commands = typer.Typer()


Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Rebuild all states from the events while workers run, then switch over.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --rebuild: report what would change; change nothing.")]
Partitions = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="With --rebuild: move all topics to N partitions (increase only)."),
]
Republish = Annotated[
    bool, typer.Option("--republish", help="Publish every present list entry again, from the states.")
]
DropLists = Annotated[
    bool, typer.Option("--rebuild", help="Drop the lists and read the topics again. Stop a center on SQLite before.")
]
VerifyAudit = Annotated[
    bool,
    typer.Option("--verify-audit", help="Check the audit trail for changed and missing entries; exit with 1 if any."),
]
Expect = Annotated[
    str | None,
    typer.Option(
        "--expect",
        metavar="SEQ:SHA256",
        help="With --verify-audit: an entry of the log that the audit trail must have, so that a missing end shows.",
    ),
]
Migrate = Annotated[bool, typer.Option("--migrate", help="Bring the tables of the database to this release.")]
CopyFrom = Annotated[
    Path | None,
    typer.Option(
        "--copy-from",
        metavar="FOLDER",
        help="Copy what people entered from the SQLite database of a stopped center to the empty PostgreSQL database.",
    ),
]
EndSessions = Annotated[
    str | None,
    typer.Option("--end-sessions", metavar="CORP/USER", help="End all sessions of a person, while the center runs."),
]

_LINES = {
    "events": "events folded",
    "rejected": "records that cannot be folded; they are dead letters already",
    "instances": "instances",
    "built_upon": "of these: some events deleted; the rest folded onto the old state",
    "carried_over": "of these: all events deleted; state copied unchanged",
    "from_published": "of the two above: read from the published state, because the changelog lacks them",
    "let_go": "instances dropped, because their retention is over",
    "lost": "instances lost: no event and no readable state is left",
    "states": "states that workers publish",
    "notifications": "notifications of changed states",
}
_ALWAYS = ("events", "instances", "states", "notifications")
"""Printed even when zero."""


@commands.command(
    epilog=example(
        "EDGE_CREDENTIALS_FILE=credentials.toml EDGE_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\",
        "EDGE_SCHEMA_REGISTRY_URL=http://registry:8081 taskbridge edge",
    )
)
def edge() -> None:
    """Run the edge with an existing Kafka and registry, configured by EDGE_* in the environment."""
    from taskbridge.edge.app import run

    run()


@commands.command(
    epilog=example(
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\",
        "STREAMS_SCHEMA_REGISTRY_URL=http://registry:8081 taskbridge streams",
        "taskbridge streams --rebuild --dry-run",
        "taskbridge streams --rebuild --partitions 24",
        "taskbridge streams --republish",
    )
)
def streams(
    rebuild: Rebuild = False,  # noqa: FBT002
    dry_run: DryRun = False,  # noqa: FBT002
    partitions: Partitions = None,
    republish: Republish = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Run the streams service with an existing Kafka and registry, configured by STREAMS_* in the environment.

    --rebuild recomputes states while workers run. It and --republish stop them for some seconds.
    """
    if dry_run and not rebuild:
        raise typer.BadParameter("needs --rebuild", param_hint="--dry-run")
    if partitions is not None and (dry_run or not rebuild):
        raise typer.BadParameter("needs --rebuild, and excludes --dry-run", param_hint="--partitions")
    if rebuild and republish:
        raise typer.BadParameter("use one of them at a time", param_hint="--rebuild, --republish")
    if rebuild:
        rebuild_states(dry_run=dry_run, partitions=partitions, as_json=as_json)
    elif republish:
        republish_entries(as_json=as_json)
    else:
        from taskbridge.streams.app import run

        run()


@commands.command(
    epilog=example(
        "CENTER_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\",
        "CENTER_SCHEMA_REGISTRY_URL=http://registry:8081 taskbridge center",
        "CENTER_DATABASE_URL=postgresql://taskbridge@db/center taskbridge center --migrate",
        "taskbridge center --rebuild",
        "taskbridge center --copy-from taskbridge-center",
        "taskbridge center --end-sessions ding5d17e3add038d445/manager02",
    )
)
def center(
    migrate: Migrate = False,  # noqa: FBT002
    rebuild: DropLists = False,  # noqa: FBT002
    verify_audit: VerifyAudit = False,  # noqa: FBT002
    expect: Expect = None,
    copy_from: CopyFrom = None,
    end_sessions: EndSessions = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Run the task center with an existing Kafka and registry, configured by CENTER_* in the environment.

    SQLite is migrated at start, PostgreSQL by --migrate. What people entered survives --rebuild.
    """
    options = ("--migrate", "--rebuild", "--verify-audit", "--copy-from", "--end-sessions")
    if sum(map(bool, (migrate, rebuild, verify_audit, copy_from, end_sessions))) > 1:
        raise typer.BadParameter("use one of them at a time", param_hint=", ".join(options))
    if expect is not None and not verify_audit:
        raise typer.BadParameter("use it with --verify-audit", param_hint="--expect")
    from taskbridge.center import app

    if migrate:
        found = dict[str, Any](app.migrate(database_environment_of("CENTER")))
        text = f"The database is at revision {found['to']}."
    elif rebuild:
        found = app.rebuild(database_environment_of("CENTER"))
        text = "The lists are dropped. The task center fills them again; /readyz shows the progress."
    elif verify_audit:
        found = app.verify_audit(database_environment_of("CENTER"), logged=_logged(expect))
        text = f"The audit trail is complete: {found['entries']:,} entries."
        if found["broken"] is not None:
            text = (
                f"Entry {found['broken']} of the audit trail is missing, was changed, or follows one that is missing."
            )
    elif copy_from is not None:
        found = app.copy_from(copy_from, database_environment_of("CENTER"), report=Heartbeat(progress).beat)
        text = "\n".join(f"{count:>12,}  {name}" for name, count in found["rows"].items())
        text += f"\nThe audit trail has {counted(found['entries'], 'entry', 'entries')}."
        text += f" {copy_from} is unchanged: do not start a task center on it again."
    elif end_sessions is not None:
        found, text = _ended(end_sessions)
    else:
        app.run()
        return
    say(json_line(found) if as_json else text)
    if found.get("broken") is not None:
        raise typer.Exit(1)


def _logged(given: str | None) -> Logged | None:
    if given is None:
        return None
    from taskbridge.center.access.audit import Logged

    found = re.fullmatch("([1-9][0-9]{0,17}):([0-9a-fA-F]{64})", given)
    if found is None:
        raise typer.BadParameter("give seq and sha256 of an entry of the log, as 4711:…", param_hint="--expect")
    return Logged(int(found[1]), found[2].lower())


def _ended(given: str) -> tuple[dict[str, Any], str]:
    from taskbridge.center.app import end_sessions
    from taskbridge.center.settings import parse_person
    from taskbridge.runtime.logs import configure_logs

    configure_logs("text", "ERROR")  # the entry of the audit trail is in the result
    try:
        person = parse_person(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--end-sessions") from error
    found = end_sessions(person, database_environment_of("CENTER"))
    text = f"Sessions of {given} that have ended: {found['ended']}."
    if "entry" in found:
        text += f" Entry {found['entry']} of the audit trail records it, with the hash {found['sha256']}."
    return found, text


@commands.command(
    "dingtalk-approvals",
    epilog=example(
        "APPROVALS_APP_KEY=ding… APPROVALS_APP_SECRET=… APPROVALS_EDGE_URL=http://127.0.0.1:8400 \\",
        "APPROVALS_SOURCE=dingtalk APPROVALS_SOURCE_SECRET=whsec_… taskbridge dingtalk-approvals",
    ),
)
def dingtalk_approvals() -> None:
    """Receive DingTalk's own approvals by its Stream mode and post them to the edge; configured by APPROVALS_*.

    An event is acknowledged after the edge has stored it. Until then DingTalk sends it again.
    """
    from taskbridge.dingtalk.approvals.app import run

    run()


def rebuild_states(*, dry_run: bool, partitions: int | None, as_json: bool) -> None:
    from taskbridge.streams.rebuild.command import rebuild

    found = rebuild(environment_of("STREAMS"), dry_run=dry_run, report=progress, partitions=partitions)
    if as_json:
        say(json_line(found))
        return
    for name, text in _LINES.items():
        if found[name] or name in _ALWAYS:
            say(f"{found[name]:>12,}  {text}")
    if found["switched"]:
        if partitions is not None:
            say(f"All topics have {partitions} partitions. Set TASKBRIDGE_PARTITIONS={partitions} from now on.")
        say(f"Version {found['version']} is live. The next rebuild deletes the one that it replaced.")
    else:
        say("Dry run: nothing was changed.")


def republish_entries(*, as_json: bool) -> None:
    from taskbridge.streams.rebuild.command import republish

    found = republish(environment_of("STREAMS"), report=progress)
    say(json_line(found) if as_json else f"Workers publish the list entries of {found['instances']:,} instances now.")


def environment_of(
    prefix: str, bootstrap_servers: str | None = None, registry_url: str | None = None, data_dir: Path | None = None
) -> Mapping[str, str]:
    """The service's settings, with the addresses, the folder and the endpoints file of the bridge that runs here."""
    from taskbridge.cli.connection import service_environment
    from taskbridge.cli.data_folder import data_folder

    folder, defaults = data_folder(data_dir), dict[str, str]()
    if (running := folder.running()) is not None:
        defaults[f"{prefix}_DATA_DIR"] = str(folder.path / prefix.lower())
        if prefix == "WEBHOOKS" and running.endpoints_file is not None:
            defaults["WEBHOOKS_ENDPOINTS_FILE"] = running.endpoints_file
    return {**defaults, **service_environment(prefix, bootstrap_servers, registry_url, data_dir)}


def database_environment_of(prefix: str) -> Mapping[str, str]:
    """The service's settings for a command that uses its database alone: Kafka may be away, and the bridge stopped."""
    from taskbridge.cli.connection import LOCAL_BOOTSTRAP_SERVERS, LOCAL_REGISTRY_URL
    from taskbridge.cli.data_folder import data_folder

    folder = data_folder()
    part = folder.path / prefix.lower()
    is_bridges = folder.running() is not None or (folder.is_named and part.is_dir())
    return {
        **({f"{prefix}_DATA_DIR": str(part)} if is_bridges else {}),
        f"{prefix}_KAFKA_BOOTSTRAP_SERVERS": LOCAL_BOOTSTRAP_SERVERS,
        f"{prefix}_SCHEMA_REGISTRY_URL": LOCAL_REGISTRY_URL,
        **os.environ,
    }
