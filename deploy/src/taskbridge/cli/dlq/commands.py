"""The commands ``taskbridge dlq list|show|replay``: options, help and output."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from taskbridge.cli.kept import Kept, check_one_way, print_whole
from taskbridge.cli.options import (
    BootstrapServers,
    DataDir,
    Everything,
    Json,
    RegistryUrl,
    WhichOne,
    WhichOnes,
    example,
    operator_connection,
)
from taskbridge.cli.terminal import json_line, progress, say

# Commands import what they need when they run, as in program.py.

dlq_app = typer.Typer(
    help="List, show and replay dead letters: records that streams could not process.", no_args_is_help=True
)

_KEPT = Kept(
    none="there are no dead letters",
    none_for="no dead letter has the reason",
    none_with="no dead letter has the id {}: list the ids with 'taskbridge dlq list'",
)


@dlq_app.command("list", epilog=example("taskbridge dlq list", "taskbridge dlq list --reason undecodable --json"))
def list_(
    reason: Annotated[str | None, typer.Option(help="Only those with this reason.")] = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """List the dead letters in the order of their arrival, with the time of their replay."""
    from taskbridge.cli.dlq.dead_letters import read_dead_letters, summary

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        letters = sorted(read_dead_letters(connection, progress, replays), key=lambda each: (each.at_ms, each.id))
    _KEPT.print_list([summary(each) for each in letters], replays, reason, as_json=as_json)


@dlq_app.command("show", epilog=example("taskbridge dlq show 3-17"))
def show(
    letter_id: WhichOne,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Print all fields of one dead letter, its value decoded if possible."""
    from taskbridge.cli.dlq.dead_letters import in_full, read_dead_letters

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        letters = {each.id: each for each in read_dead_letters(connection, progress, replays)}
        _KEPT.check([letter_id], letters)
        shown = in_full(letters[letter_id], replays.get(letter_id), connection)
    if as_json:
        say(json_line(shown))
        return
    value = shown.pop("value")
    print_whole(shown, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2), width=10)


@dlq_app.command(
    "replay", epilog=example("taskbridge dlq replay 3-17 3-18", "taskbridge dlq replay --reason unknown-action")
)
def replay(
    ids: WhichOnes = None,
    reason: Annotated[str | None, typer.Option(help="Select all with this reason.")] = None,
    everything: Everything = False,  # noqa: FBT002
    force: Annotated[bool, typer.Option("--force", help="Also replay those older than 30 days.")] = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Publish dead letters to their original topic again, after the cause is fixed.

    A record that still fails becomes a new dead letter. Safe to repeat: each is published once. Exit code 1 if any
    could not be delivered, was too large to store and is gone from its topic, or is older than 30 days: the later
    events of its task may be gone, and it would be pending again.
    """
    check_one_way(ids, reason, everything=everything)
    from taskbridge.cli.dlq.dead_letters import FAILED, GONE, TOO_OLD, read_dead_letters
    from taskbridge.cli.dlq.dead_letters import replay as put_back

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        letters = {each.id: each for each in read_dead_letters(connection, progress, replays)}
        chosen = _KEPT.chosen({each.id: each.reason for each in letters.values()}, ids, reason)
        done = put_back(connection, [letters[each] for each in chosen], replays, progress, older_too=force)
    for letter, outcome in done:
        shown = {"id": letter.id, "outcome": outcome, "reason": letter.reason}
        say(json_line(shown) if as_json else f"{outcome:18}{letter.id}  {letter.reason or '-'}")
    if any(outcome in (FAILED, GONE, TOO_OLD) for _, outcome in done):
        raise typer.Exit(1)
