"""The commands ``taskbridge topics apply|acls`` and ``taskbridge schemas register|check``."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example, operator_connection
from taskbridge.cli.terminal import json_line, say

# Commands import what they need when they run, as in program.py.

topics_app = typer.Typer(
    help="Create and check the topics of the contract, and print their ACLs.", no_args_is_help=True
)
schemas_app = typer.Typer(help="Register and check the Avro schemas of the contract.", no_args_is_help=True)


@topics_app.command("apply", epilog=example("taskbridge topics apply --bootstrap-servers kafka:9092"))
def topics_apply(
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Partitions of created topics. Default: TASKBRIDGE_PARTITIONS, else 12.")
    ] = None,
    replication: Annotated[int, typer.Option(help="Replicas of created topics; -1 is the broker's default.")] = -1,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Create missing topics, and report how the others differ from the contract; exit code 1 if they do or may."""
    from taskbridge.runtime.topic_admin import apply_topics, partitions_setting
    from taskbridge.schemas import topics

    wanted = partitions or partitions_setting(os.environ)
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
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


@topics_app.command("acls", epilog=example("taskbridge topics acls --principal streams=User:CN=streams > acls.sh"))
def topics_acls(
    role: Annotated[list[str] | None, typer.Argument(metavar="[ROLE]...", help="Roles to print. Default: all.")] = None,
    principal: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=PRINCIPAL", help="Kafka principal of the role. Default: User: and the role's name."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Also create them; needs Alter on the cluster.")] = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Print the least ACLs that each role needs, as kafka-acls commands with their purpose."""
    from taskbridge.cli.connection import find_connection
    from taskbridge.cli.contract.acls import apply_acls, bindings, commands, roles

    split = [each.partition("=") for each in principal or ()]
    named = {name: user for name, _, user in split}
    subscriber = named.get("subscriber", "User:subscriber")
    wanted = roles(subscriber.partition(":")[2])
    if unknown := {*(role or ()), *named} - wanted.keys():
        raise typer.BadParameter(f"unknown role {', '.join(sorted(unknown))}: use {', '.join(wanted)}")
    of = {name: named.get(name, f"User:{name}") for name in role or wanted}
    if apply:
        connection = find_connection(bootstrap_servers, None, data_dir=data_dir)
        apply_acls(connection.admin(), [each for name in of for each in bindings(of[name], wanted[name])])
    for name, user in of.items():
        if as_json:
            for acl in wanted[name]:
                say(json_line({"role": name, "principal": user, **acl._asdict()}))
        else:
            say("\n".join([f"# {name}", *commands(user, wanted[name]), ""]))


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
    """Check that each schema is fully compatible with every published version; needs no registry."""
    from taskbridge.cli.contract.schema_versions import check

    reports = check()
    for report in reports:
        found: dict[str, Any] = {"record": report.record, "version": report.version, "problems": report.problems}
        lines = [f"{'broken' if report.problems else 'ok':8}{report.record} against version {report.version}"]
        lines += [f"        {each}" for each in report.problems]
        say(json_line(found) if as_json else "\n".join(lines))
    if any(report.problems for report in reports):
        raise typer.Exit(1)
