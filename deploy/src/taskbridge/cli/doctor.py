"""The command ``taskbridge doctor``: checks an environment, and says what to do."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from taskbridge.cli.options import BootstrapServers, Credentials, DataDir, Json, RegistryUrl, example
from taskbridge.cli.terminal import json_line, say

if TYPE_CHECKING:
    from taskbridge.cli.doctor_checks import Finding

commands = typer.Typer()

EndToEnd = Annotated[
    bool, typer.Option("--end-to-end", help="Post a signed test task, wait for its live update, delete it.")
]

Vendor = Annotated[
    bool,
    typer.Option(
        "--vendor",
        help="Ask DingTalk instead, read-only, with the credentials of RECONCILE_APPS_FILE: see RECONCILE_*.",
    ),
]

SettingsAlone = Annotated[
    bool, typer.Option("--settings", help="Check only settings and the files that they name: nothing needs to run.")
]

_MARKS = {"ok": "ok", "warning": "warn", "failed": "FAIL"}


@commands.command(
    epilog=example(
        "taskbridge doctor",
        "EDGE_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 EDGE_SCHEMA_REGISTRY_URL=http://registry:8081 \\",
        "EDGE_CREDENTIALS_FILE=credentials.toml taskbridge doctor --json",
        "taskbridge doctor --end-to-end --edge-url http://127.0.0.1:8400 --center-url http://127.0.0.1:8500",
        "RECONCILE_APPS_FILE=apps.toml taskbridge doctor --vendor",
    )
)
def doctor(
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    credentials: Credentials = None,
    edge_url: Annotated[str | None, typer.Option(help="URL of an edge that should be running.")] = None,
    streams_url: Annotated[str | None, typer.Option(help="URL of a worker that should be running.")] = None,
    center_url: Annotated[str | None, typer.Option(help="URL of a task center that should be running.")] = None,
    webhooks_url: Annotated[str | None, typer.Option(help="URL of webhooks that should be running.")] = None,
    end_to_end: EndToEnd = False,  # noqa: FBT002
    api_token: Annotated[
        str | None,
        typer.Option(help="With --end-to-end: token for the API, if it requires one.", envvar="TASKBRIDGE_API_TOKEN"),
    ] = None,
    vendor: Vendor = False,  # noqa: FBT002
    settings: SettingsAlone = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Check an environment before and after going live, and say what is wrong and what to do.

    Checks each service whose settings (EDGE_*, STREAMS_*, CENTER_*, WEBHOOKS_*) are in the environment, else the bridge
    that runs in --data-dir. Changes nothing. --end-to-end posts one task and deletes it. --vendor asks what the
    credentials may read, how many calls are left, and which apps have none. Exit code 1 if a check failed.
    """
    from taskbridge.cli.doctor_checks import Examination, State

    states: set[State] = set()

    def report(found: Finding) -> None:
        states.add(found.state)
        if as_json:
            say(json_line(asdict(found)))
        else:
            do = f"\n      {'':12} → {found.do}" if found.do else ""
            say(f"{_MARKS[found.state]:5} {found.check:12} {found.says}{do}")

    if vendor:
        from taskbridge.cli import doctor_vendor
        from taskbridge.cli.connection import service_environment

        environment = service_environment("RECONCILE", bootstrap_servers, registry_url, data_dir)
        if credentials is not None:
            environment["RECONCILE_CREDENTIALS_FILE"] = str(credentials)
        doctor_vendor.examine(environment, report)
    else:
        examination = Examination(
            os.environ,
            bootstrap_servers=bootstrap_servers,
            registry_url=registry_url,
            data_dir=data_dir,
            credentials=credentials,
            urls={"edge": edge_url, "streams": streams_url, "center": center_url, "webhooks": webhooks_url},
        )
        findings = examination.findings(end_to_end=end_to_end, api_token=api_token)
        for each in examination.settings() if settings else findings:
            report(each)
    if State.FAILED in states:
        raise typer.Exit(1)
