"""The commands ``taskbridge reconcile run|status|copies``, ``apps sync`` and ``backfill``: options and output."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer resolves the parameters' types
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import TIMES, BootstrapServers, DataDir, Json, RegistryUrl, example, moment_of
from taskbridge.cli.terminal import counted, json_line, progress, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

reconcile_app = typer.Typer(
    help="Find and repair callbacks that never arrived, by DingTalk's open API.", no_args_is_help=True
)

Service = Annotated[
    bool,
    typer.Option(
        "--service", help="Run as a service: one pass every RECONCILE_EVERY_MINUTES, with health and metrics."
    ),
]

AppCode = Annotated[str, typer.Option("--app", help="Code of the app, as in the file of apps.")]
Since = Annotated[str, typer.Option("--since", help=TIMES)]

commands = typer.Typer()

apps_app = typer.Typer(
    help="Bring Yida's apps and their tokens into the credentials file.",
    no_args_is_help=True,
    callback=lambda: None,  # a group, though it has one command
)


@apps_app.command(
    "sync",
    epilog=example(
        "RECONCILE_APPS_FILE=apps.toml taskbridge apps sync --dry-run",
        "RECONCILE_APPS_FILE=apps.toml taskbridge apps sync --credentials credentials.toml --json",
    ),
)
def apps_sync(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change; write nothing.")] = False,  # noqa: FBT002
    credentials: Annotated[
        Path | None,
        typer.Option(
            help="Credentials file of the edge. Default: RECONCILE_CREDENTIALS_FILE, else that of --data-dir."
        ),
    ] = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Write the apps that DingTalk lists, with their tokens, into the credentials file, which the edge reloads.

    Needs a corp_token in the apps file. A renewed token is added; the old one is removed a day later. Nothing else is
    removed: absent apps are reported. Callbacks that were rejected before their app or token was known are replayed.
    """
    from taskbridge.cli import reconcile_runs
    from taskbridge.cli.data_folder import data_folder

    environment = reconcile_runs.environment_of(bootstrap_servers, registry_url, data_dir)
    if credentials is None and not environment.get("RECONCILE_CREDENTIALS_FILE"):
        credentials = data_folder(data_dir).credentials
    found = reconcile_runs.sync_apps(environment, credentials, progress, dry_run=dry_run)
    if as_json:
        say(json_line({**found, "dry_run": dry_run}))
        return
    for each in found["changes"]:
        say(f"{each['change']:17}  {each['corp_id']}  {each['app_type']}  {each['name'] or ''}".rstrip())
    end = "nothing was written" if dry_run else f"{found['replayed']} rejected callbacks replayed"
    say(f"{counted(found['listed'], 'app')} in DingTalk, {counted(len(found['changes']), 'difference')} ({end})")


@reconcile_app.command("run", epilog=example("RECONCILE_APPS_FILE=apps.toml taskbridge reconcile run --json"))
def reconcile_run(
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    service: Service = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Find and repair callbacks lost since the last run, and publish the values of forms that changed.

    Exit code 1 if not all could be checked.

    Configured by RECONCILE_* in the environment. The next run checks the rest.
    """
    from taskbridge.cli import reconcile_runs

    environment = reconcile_runs.environment_of(bootstrap_servers, registry_url, data_dir)
    if service:
        reconcile_runs.serve(environment)
        return
    _print(reconcile_runs.one_pass(environment), "lost {} found in {} and repaired", as_json=as_json)


@reconcile_app.command("status", epilog=example("RECONCILE_APPS_FILE=apps.toml taskbridge reconcile status"))
def reconcile_status(as_json: Json = False) -> None:  # noqa: FBT002
    """Print how far forms are read, calls left, what was missing, absences, apps, names and problems.

    Calls neither DingTalk nor Kafka.
    """
    from taskbridge.cli import reconcile_runs

    found = reconcile_runs.status(reconcile_runs.environment_of())
    say(json_line(found) if as_json else "\n".join(_status_lines(found)))


def _status_lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"last pass {found['last_pass_at'] or 'never'}, last complete one {found['last_whole_pass_at'] or 'never'}"
    for each in found["calls"]:
        made = f"{each['today']} calls today, {each['this_month']} this month"
        yield f"{each['corp_id']}: {made}, {each['left_today']} left today"
    for each in found["forms"]:
        yield f"{each['work']:9}  {each['app_type']}  {each['form_uuid']}  read until {each['read_until']}"
    for each in found["found"]:
        what = "missing" if each["missing"] else "added"
        yield f"{each['day']}  {each['app_type']}  {each['events']:>6} {what:7}  {each['kind']} ({each['found_by']})"
    for each in found["callbacks"]:
        if each["missing_since"]:
            yield f"{each['app_type']}: {each['missing_since']} missing since its last callback, {each['last_at']}"
    for each in found["apps"]:
        absent = ", ".join(each["absent"]) or "none"
        apps = counted(each["listed"], "app")
        yield f"{each['corp_id']}: {apps} synced {each['synced_at']}; absent in DingTalk: {absent}"
    for each in found["names"]:
        yield f"{each['corp_id']}: {each['names']:>6} {each['kind']}s in tasks, record {each['record']}"
    yield from (f"{each['corp_id']}: values of {each['waiting']} instances wait" for each in found["form_data"])
    for each in found["problems"]:
        yield f"{each['work']}, {each['since']}: {each['problem']}"
    for each in found["absences"]:
        yield f"absent since {each['first_at']}  {each['app_type']}  {each['instance_id']}"


@reconcile_app.command(
    "copies",
    epilog=example("taskbridge reconcile copies --app APP_RY60OCRF33Z7534 --since 2026-09-01 --user manager123"),
)
def reconcile_copies(
    app: AppCode,
    since: Since,
    users: Annotated[
        list[str] | None, typer.Option("--user", help="User id; repeat it. Default: all in the app's states.")
    ] = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Find copies of an app whose callbacks never arrived, for people; passes do not find them.

    Takes one API call per person, and one for each further 100 copies; with a corp_token in the apps file, one more
    for a person with lost copies, for their times and pages. Instances created before are not read.
    """
    from taskbridge.cli import reconcile_runs

    environment = reconcile_runs.environment_of(bootstrap_servers, registry_url, data_dir)
    since_ms = moment_of(since)
    outcome = reconcile_runs.copies(environment, app, since_ms, users or [], progress)
    _print(outcome, "lost {} found in {} and repaired", as_json=as_json)


@commands.command(
    epilog=example(
        "taskbridge backfill --app APP_RY60OCRF33Z7534 --since 2026-09-01 --dry-run",
        "taskbridge backfill --app APP_RY60OCRF33Z7534 --since 2026-09-01",
    )
)
def backfill(
    app: AppCode,
    since: Since,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print how many API calls it takes.")] = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Import the history of an app: all instances modified since then. Safe to repeat.

    Ends with exit code 1 when no calls are left or DingTalk does not answer; run it again to continue. Its events
    have the cause "backfill", at most 50 per second.
    """
    from taskbridge.cli import reconcile_runs

    environment = reconcile_runs.environment_of(bootstrap_servers, registry_url, data_dir)
    since_ms = moment_of(since)
    if not dry_run:
        outcome = reconcile_runs.backfill(environment, app, since_ms, progress)
        _print(outcome, "{} events imported for {}", as_json=as_json)
        return
    found = reconcile_runs.dry_run(environment, app, since_ms)
    if as_json:
        say(json_line(found))
        return
    say(f"{found['instances']:>9,}  instances of {found['forms']} forms")
    say(f"{found['list_calls']:>9,}  calls to list them")
    say(f"{found['detail_calls']:>9,}  calls to get their tasks; none for known instances")
    say(f"{found['left_today']:>9,}  calls left today (RECONCILE_CALLS_PER_DAY, RECONCILE_CALLS_PER_MONTH)")
    say(f"{found['days']:>9,}  days at most; run it once a day")


def _print(outcome: Mapping[str, Any], repair: str, *, as_json: bool) -> None:
    if as_json:
        say(json_line(outcome))
    else:
        say(f"{outcome['instances']:>9,}  instances checked, details fetched for {outcome['asked']:,}")
        say(f"{outcome['unsettled']:>9,}  changed within RECONCILE_SETTLE_MINUTES; the next run checks them")
        for each in outcome["repairs"]:
            say(f"{each['events']:>9,}  {repair.format(each['kind'], each['app_type'])}")
        for app_type, problem in outcome["problems"].items():
            progress(f"{app_type}: {problem}")
        if outcome["retry_at"] is not None:
            progress(f"run it again after {outcome['retry_at']}; it continues where it ended")
    if outcome["problems"]:
        raise typer.Exit(1)
