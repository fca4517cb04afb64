"""The commands ``taskbridge topics apply|acls`` and ``tail``."""

from __future__ import annotations

import os
from itertools import chain, takewhile
from typing import Annotated, Any

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example, operator_connection
from taskbridge.cli.terminal import json_line, say, stop_signal

topics_app = typer.Typer(
    help="Create and check the topics of the contract, and print their ACLs.", no_args_is_help=True
)
commands = typer.Typer()


@topics_app.command("apply", epilog=example("taskbridge topics apply --bootstrap-servers kafka:9092"))
def topics_apply(
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Partitions of created topics. Default: TASKBRIDGE_PARTITIONS, else 12.")
    ] = None,
    replication: Annotated[
        int | None, typer.Option(help="Replicas of created topics; by default three, or one for each broker.")
    ] = None,
    delete_unused: Annotated[  # noqa: FBT002
        bool, typer.Option("--delete-unused", help="Delete the internal topics that only earlier releases used.")
    ] = False,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Create missing topics, and report how the others differ from the contract; exit code 1 if they do or may.

    Internal topics that only earlier releases used are listed.
    """
    from taskbridge.runtime.topic_admin import apply_topics, partitions_setting
    from taskbridge.schemas import topics
    from taskbridge.streams.rebuild.operation import delete_unused_topics, unused_topics

    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        reports = apply_topics(
            connection.admin(),
            topics.ALL,
            partitions=partitions or partitions_setting(os.environ),
            replication=replication,
        )
        unused = unused_topics(connection.admin())
        if delete_unused:
            delete_unused_topics(connection.admin(), unused)
    for report in reports:
        found: dict[str, Any] = {"topic": report.name, "state": report.state, "partitions": report.partitions}
        found |= {"drift": report.drift, "unchecked": report.unchecked}
        lines = [
            f"{report.state:10}{report.name} ({report.partitions} partitions)",
            *(f"          {each}" for each in report.remarks),
        ]
        say(json_line(found) if as_json else "\n".join(lines))
    state = "deleted" if delete_unused else "unused"
    for name in unused:
        hint = "" if delete_unused else " (of an earlier release: delete it with --delete-unused)"
        say(json_line({"topic": name, "state": state}) if as_json else f"{state:10}{name}{hint}")
    if any(report.remarks for report in reports):
        raise typer.Exit(1)


@topics_app.command("acls", epilog=example("taskbridge topics acls --principal streams=User:CN=streams > acls.sh"))
def topics_acls(
    role: Annotated[list[str] | None, typer.Argument(metavar="ROLE", help="Roles to print. Default: all.")] = None,
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
    from taskbridge.cli.acls import apply_acls, bindings, commands, roles

    split = [each.partition("=") for each in principal or ()]
    named = {name: user for name, _, user in split}
    subscriber = named.get("subscriber", "User:subscriber")
    acls = roles(subscriber.partition(":")[2])
    if unknown := {*(role or ()), *named} - acls.keys():
        raise typer.BadParameter(f"unknown role {', '.join(sorted(unknown))}: use {', '.join(acls)}")
    of = {name: named.get(name, f"User:{name}") for name in role or acls}
    if apply:
        with operator_connection(bootstrap_servers, None, data_dir) as connection:
            apply_acls(connection.admin(), [each for name in of for each in bindings(of[name], acls[name])])
    for name, user in of.items():
        if as_json:
            for acl in acls[name]:
                say(json_line({"role": name, "principal": user, **acl._asdict()}))
        else:
            say("\n".join([f"# {name}", *commands(user, acls[name]), ""]))


@commands.command(epilog=example("taskbridge tail taskbridge.task-notifications.v1 --from-beginning --max 5"))
def tail(
    topic: Annotated[str, typer.Argument(help="The full name of the topic.")],
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the oldest record.")] = False,  # noqa: FBT002
    maximum: Annotated[int | None, typer.Option("--max", min=1, metavar="N", help="Stop after N records.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line: the only format.")] = True,  # noqa: ARG001, FBT002
) -> None:
    """Print the decoded records of a topic as they arrive, one JSON object per line, until Ctrl-C."""
    with stop_signal() as stop:
        from taskbridge.cli.connection import Decoder

        with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
            decode = Decoder(connection.registry)
            batches = takewhile(lambda _: not stop.is_set(), connection.follow(topic, from_beginning=from_beginning))
            for count, message in enumerate(chain.from_iterable(batches), 1):
                say(json_line(decode(message)))
                if count == maximum:
                    break
