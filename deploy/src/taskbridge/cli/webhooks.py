"""The command ``taskbridge webhooks``: run the service, or look after its endpoints."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from taskbridge.cli.options import Json, example
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
    with operations() as opened:
        found, problem = opened.endpoints(), opened.problem
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
            see = f"taskbridge set-aside list deliveries --outcome any --endpoint {each['id']}"
            say(f"  failing since {each['failing_since']}: {see}")


@webhooks_app.command("test", epilog=example("taskbridge webhooks test erp"))
def send_test(endpoint: Name, as_json: Json = False) -> None:  # noqa: FBT002
    """Send an example to an endpoint now; exit code 1 if it was not accepted."""
    with operations() as opened:
        found = asyncio.run(opened.test(endpoint))
    text = f"{endpoint} answered {found['status']}" if found["delivered"] else f"{endpoint}: {found['problem']}"
    say(json_line(found) if as_json else text)
    if not found["delivered"]:
        raise typer.Exit(1)


@webhooks_app.command(epilog=example("taskbridge webhooks disable erp --reason 'moves to another host'"))
def disable(
    endpoint: Name, reason: Annotated[str, typer.Option(help="Shown to other operators.")] = "by an operator"
) -> None:
    """Send an endpoint nothing; notifications wait until it is enabled."""
    with operations() as opened:
        opened.set_enabled(endpoint, reason=reason)
    say(f"{endpoint} is disabled; its deliveries wait")


@webhooks_app.command(epilog=example("taskbridge webhooks enable erp"))
def enable(endpoint: Name) -> None:
    """Send an endpoint what waits for it, at once."""
    with operations() as opened:
        opened.set_enabled(endpoint, reason=None)
    say(f"{endpoint} is enabled")


def operations() -> AbstractContextManager[Operations]:
    from taskbridge.cli.services import environment_of
    from taskbridge.webhooks import app

    return app.operations(environment_of("WEBHOOKS"))
