"""The commands ``taskbridge topics apply`` and ``taskbridge schemas register|check``."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example
from taskbridge.cli.terminal import json_line, say

# Commands import what they need when they run, as in program.py.

topics_app = typer.Typer(help="The topics of the contract.", no_args_is_help=True)
schemas_app = typer.Typer(help="The Avro schemas of the contract.", no_args_is_help=True)


@topics_app.command("apply", epilog=example("taskbridge topics apply --bootstrap-servers kafka:9092"))
def topics_apply(
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="For topics that are created. Default: TASKBRIDGE_PARTITIONS, else 12.")
    ] = None,
    replication: Annotated[int, typer.Option(help="Replicas of created topics; -1 is the broker's default.")] = -1,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Create the missing topics and report how the others differ from the contract; exit code 1 if they do or may."""
    from taskbridge.cli.connection import find_connection
    from taskbridge.runtime.settings import partitions_setting
    from taskbridge.runtime.topic_admin import apply_topics
    from taskbridge.schemas import topics

    connection = find_connection(bootstrap_servers, registry_url, data_dir=data_dir)
    wanted = partitions or partitions_setting(os.environ)
    reports = apply_topics(connection.admin(), topics.ALL, partitions=wanted, replication=replication)
    for report in reports:
        found: dict[str, Any] = {"topic": report.name, "state": report.state, "partitions": report.partitions}
        found |= {"drift": report.drift, "unchecked": report.unchecked}
        lines = [
            f"{report.state:10}{report.name} ({report.partitions} partitions)",
            *(f"          {each}" for each in report.remarks),
        ]
        say(json_line(found) if as_json else "\n".join(lines))
    if any(report.remarks for report in reports):
        raise typer.Exit(1)


@schemas_app.command("register", epilog=example("taskbridge schemas register --registry-url http://registry:8081"))
def schemas_register(
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Register the schemas and set their compatibility to FULL_TRANSITIVE. Safe to repeat."""
    from taskbridge.cli.connection import find_connection
    from taskbridge.schemas import topics

    registry = find_connection(None, registry_url, data_dir=data_dir).registry
    for subject, schema_id in registry.register(topics.ALL).items():
        say(json_line({"subject": subject, "id": schema_id}) if as_json else f"{schema_id:>6}  {subject}")


@schemas_app.command("check", epilog=example("taskbridge schemas check"))
def schemas_check(as_json: Json = False) -> None:  # noqa: FBT002
    """Prove that each schema is fully compatible with every version published before; needs no registry."""
    from taskbridge.cli.contract.schema_versions import check

    reports = check()
    for report in reports:
        found: dict[str, Any] = {"record": report.record, "version": report.version, "problems": report.problems}
        lines = [f"{'broken' if report.problems else 'ok':8}{report.record} against version {report.version}"]
        lines += [f"        {each}" for each in report.problems]
        say(json_line(found) if as_json else "\n".join(lines))
    if any(report.problems for report in reports):
        raise typer.Exit(1)
