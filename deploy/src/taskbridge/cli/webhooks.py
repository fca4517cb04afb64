"""The command ``taskbridge webhooks``: run the service, or look after endpoints and deliveries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from taskbridge.cli.options import TIMES, Json, example, moment_of
from taskbridge.cli.terminal import json_line, progress, say

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from taskbridge.webhooks.operations import Operations

webhooks_app = typer.Typer(
    invoke_without_command=True,
    epilog=example(
        "WEBHOOKS_ENDPOINTS_FILE=endpoints.toml WEBHOOKS_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\",
        "WEBHOOKS_SCHEMA_REGISTRY_URL=http://registry:8081 taskbridge webhooks",
    ),
)


Ended = Literal["waiting", "delivered", "given_up", "replaced"]
Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name in the endpoints file.")]
Migrate = Annotated[bool, typer.Option("--migrate", help="Bring the tables of the database to this release.")]


@webhooks_app.callback()
def webhooks(context: typer.Context, migrate: Migrate = False) -> None:  # noqa: FBT002
    """Deliver notifications over HTTP. Without a command, run the service, configured by WEBHOOKS_* variables."""
    if context.invoked_subcommand is not None:
        return
    from taskbridge.cli.services import environment_of
    from taskbridge.webhooks import app

    if migrate:
        say(f"The database is at revision {app.migrate_tables(environment_of('WEBHOOKS'))}.")
    else:
        app.run(environment_of("WEBHOOKS"))


@webhooks_app.command("list", epilog=example("taskbridge webhooks list"))
def list_endpoints(as_json: Json = False) -> None:  # noqa: FBT002
    """List the endpoints: state, what waits, and what was given up."""
    with _operations() as operations:
        found, problem = operations.endpoints(), operations.problem
    if problem is not None:
        progress(f"{problem}. The database knows these endpoints; the service runs on with the file that it had.")
    for each in found:
        if as_json:
            say(json_line(each))
            continue
        say(f"{each['id']:20}  {each['state']:8}  {each['format'] or '':15}  {each['url'] or ''}".rstrip())
        ages = f", the oldest for {each['oldest_s']:.0f} s" if each["waiting"] else ""
        say(f"  {each['waiting']} waiting{ages}; {each['given_up']} given up")
        if each["disabled"] is not None:
            say(f"  disabled: {each['disabled']}. Enable it: taskbridge webhooks enable {each['id']}")
        elif each["failing_since"] is not None:
            say(f"  failing since {each['failing_since']}: taskbridge webhooks deliveries --endpoint {each['id']}")


@webhooks_app.command("test", epilog=example("taskbridge webhooks test erp"))
def send_test(endpoint: Name, as_json: Json = False) -> None:  # noqa: FBT002
    """Send an example to an endpoint now; exit code 1 if it was not accepted."""
    with _operations() as operations:
        found = asyncio.run(operations.test(endpoint))
    if as_json:
        say(json_line(found))
    else:
        say(f"{endpoint} answered {found['status']}" if found["delivered"] else f"{endpoint}: {found['problem']}")
    if not found["delivered"]:
        raise typer.Exit(1)


@webhooks_app.command(epilog=example("taskbridge webhooks deliveries --endpoint erp --outcome given_up"))
def deliveries(
    endpoint: Annotated[str | None, typer.Option(help="Only of this endpoint.")] = None,
    outcome: Annotated[Ended | None, typer.Option(help="Only those.")] = None,
    most: Annotated[int, typer.Option("--max", min=1, metavar="N", help="At most N.")] = 50,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """List deliveries, the latest first, with the last answer."""
    from taskbridge.webhooks.tables import Outcome

    wanted = None if outcome is None else Outcome[outcome.upper()]
    with _operations() as operations:
        found = list(operations.deliveries(endpoint, wanted, most))
    for each in found:
        if as_json:
            say(json_line(each))
            continue
        said = f"  {each['problem']}" if each["problem"] else ""
        what = f"{each['data']['view']} {each['data']['change']}"
        say(f"{each['id']:>8}  {each['at']}  {each['endpoint']:16}  {each['outcome']:9}  {what}{said}")


@webhooks_app.command(
    epilog=example("taskbridge webhooks replay erp 4711", "taskbridge webhooks replay erp --since 2026-09-01")
)
def replay(
    endpoint: Name,
    ids: Annotated[list[int] | None, typer.Argument(metavar="ID", help="Ids, as `deliveries` shows them.")] = None,
    since: Annotated[str | None, typer.Option(help=f"All that were added since then. {TIMES}")] = None,
    outcome: Annotated[Ended, typer.Option(help="With --since: which.")] = "given_up",
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Deliver again: by id, or all of an endpoint since a time that were given up."""
    from taskbridge.webhooks.tables import Outcome

    if bool(ids) == (since is not None):
        raise typer.BadParameter("use either ids or --since", param_hint="ID, --since")
    since_ms = None if since is None else moment_of(since)
    with _operations() as operations:
        done = operations.replay(endpoint, ids or [], since_ms, Outcome[outcome.upper()])
    missing = len(set(ids or ())) - sum(done) if ids else 0
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


@webhooks_app.command(epilog=example("taskbridge webhooks disable erp --reason 'moves to another host'"))
def disable(
    endpoint: Name, reason: Annotated[str, typer.Option(help="Shown to other operators.")] = "by an operator"
) -> None:
    """Send an endpoint nothing; notifications wait until it is enabled."""
    with _operations() as operations:
        operations.set_enabled(endpoint, reason=reason)
    say(f"{endpoint} is disabled; its deliveries wait")


@webhooks_app.command(epilog=example("taskbridge webhooks enable erp"))
def enable(endpoint: Name) -> None:
    """Send an endpoint what waits for it, at once."""
    with _operations() as operations:
        operations.set_enabled(endpoint, reason=None)
    say(f"{endpoint} is enabled")


def _operations() -> AbstractContextManager[Operations]:
    from taskbridge.cli.services import environment_of
    from taskbridge.webhooks import app

    return app.operations(environment_of("WEBHOOKS"))
