"""The commands ``taskbridge dlq list|show|replay``: flags, help and what is printed."""

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
    help="Records that the streams service could not use, as they were received.", no_args_is_help=True
)

_KEPT = Kept(
    none="there are no dead letters",
    none_for="no record was parked for",
    none_with="no dead letter has the id {}: 'taskbridge dlq list' shows them",
)


@dlq_app.command("list", epilog=example("taskbridge dlq list", "taskbridge dlq list --reason undecodable --json"))
def list_(
    reason: Annotated[str | None, typer.Option(help="Only those that were parked for this reason.")] = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """List the dead letters in the order in which they were parked, and when those that were replayed were."""
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
    """Print everything that is kept of one dead letter; its value decoded where that can be done."""
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
    reason: Annotated[str | None, typer.Option(help="All that were parked for this reason.")] = None,
    everything: Everything = False,  # noqa: FBT002
    force: Annotated[bool, typer.Option("--force", help="Also those parked more than 30 days ago.")] = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Put records back on the topic they were taken from, once what was wrong with them, or with us, is mended.

    What still cannot be used is parked again, as a new dead letter. Safe to repeat: each is put back once. Exit code 1
    when any could not be delivered, was too large to be parked whole and is no longer kept where it came from, or was
    parked more than 30 days ago: what became of its task since may be forgotten, and it would be pending again.
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
