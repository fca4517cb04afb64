"""The command ``taskbridge doctor``: checks an environment, and says what to do."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from taskbridge.cli.options import BootstrapServers, Credentials, DataDir, Json, RegistryUrl, example
from taskbridge.cli.terminal import json_line, say

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
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Check an environment before and after going live, and say what is wrong and what to do.

    Checks each service whose settings (EDGE_*, STREAMS_*, CENTER_*, WEBHOOKS_*) are in the environment, else the bridge
    that runs in --data-dir. Changes nothing: endpoints of webhooks get an OPTIONS request. --end-to-end posts one task
    and deletes it. --vendor asks what the credentials may read, how many calls are left, and which apps have none.
    Exit code 1 if a check failed.
    """
    from taskbridge.cli.doctor_checks import Examination, State

    is_failed = False
    if vendor:
        from taskbridge.cli import doctor_vendor
        from taskbridge.cli.connection import service_environment

        environment = service_environment("RECONCILE", bootstrap_servers, registry_url, data_dir)
        if credentials is not None:
            environment["RECONCILE_CREDENTIALS_FILE"] = str(credentials)
        findings = doctor_vendor.findings(environment)
    else:
        findings = Examination(
            os.environ,
            bootstrap_servers=bootstrap_servers,
            registry_url=registry_url,
            data_dir=data_dir,
            credentials=credentials,
            urls={"edge": edge_url, "streams": streams_url, "center": center_url, "webhooks": webhooks_url},
        ).findings(end_to_end=end_to_end, api_token=api_token)
    for each in findings:
        is_failed |= each.state is State.FAILED
        if as_json:
            say(json_line(asdict(each)))
        else:
            say(
                f"{_MARKS[each.state]:5} {each.check:12} {each.says}"
                + (f"\n      {'':12} → {each.do}" if each.do else "")
            )
    if is_failed:
        raise typer.Exit(1)
