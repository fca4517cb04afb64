"""The commands ``taskbridge dlq list|show|replay``: flags, help and what is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from taskbridge.cli.options import (
    BootstrapServers,
    DataDir,
    Everything,
    Json,
    RegistryUrl,
    WhichOne,
    WhichOnes,
    check_one_way,
    example,
    operator_connection,
    reasons_there,
)
from taskbridge.cli.terminal import json_line, progress, say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from taskbridge.schemas.dead_letters import DeadLetter

# Commands import what they need when they run, as in program.py.

dlq_app = typer.Typer(
    help="Records that the streams service could not use, as they were received.", no_args_is_help=True
)


@dlq_app.command("list", epilog=example("taskbridge dlq list", "taskbridge dlq list --reason undecodable --json"))
def list_(
    reason: Annotated[str | None, typer.Option(help="Only those that were parked for this reason.")] = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """List the dead letters in the order in which they were parked."""
    from taskbridge.cli.dlq.dead_letters import read_dead_letters, summary

    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        letters = list(read_dead_letters(connection, progress))
    found = [each for each in letters if reason is None or each.reason == reason]
    for each in sorted(found, key=lambda each: (each.at_ms, each.id)):
        shown = summary(each)
        say(json_line(shown) if as_json else "  ".join(str(value or "-") for value in shown.values()))
    if not found:
        progress(_nothing_for(reason, letters))


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

    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        shown = in_full(_with_ids(read_dead_letters(connection, progress), [letter_id])[0], connection)
    if as_json:
        say(json_line(shown))
        return
    value, headers = shown.pop("value"), shown.pop("headers")
    lines = [f"{name:10} {'-' if each is None else each}" for name, each in shown.items()]
    lines += [f"header     {name}: {each}" for name, each in headers.items()]
    # One line each, whatever line breaks were sent; only the value may have them.
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    say("\n".join(each.replace("\n", "\\n") for each in lines) + f"\n\n{text}")


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
    from taskbridge.schemas.errors import ConfigurationError

    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        letters = list(read_dead_letters(connection, progress))
        if ids:
            letters = _with_ids(letters, ids)
        else:
            found = [each for each in letters if everything or each.reason == reason]
            if letters and not found:
                raise ConfigurationError(_nothing_for(reason, letters))
            letters = found
        done = put_back(connection, letters, progress, older_too=force)
    for letter, outcome in done:
        shown = {"id": letter.id, "outcome": outcome, "reason": letter.reason}
        say(json_line(shown) if as_json else f"{outcome:18}{letter.id}  {shown['reason'] or '-'}")
    if not done:
        progress(f"nothing to replay: {_nothing_for(None, ())}")
    if any(outcome in (FAILED, GONE, TOO_OLD) for _, outcome in done):
        raise typer.Exit(1)


def _nothing_for(reason: str | None, letters: Collection[DeadLetter]) -> str:
    if reason is None or not letters:
        return "there are no dead letters"
    return f"no record was parked for '{reason}'; there are: {reasons_there(each.reason for each in letters)}"


def _with_ids(letters: Iterable[DeadLetter], ids: list[str]) -> list[DeadLetter]:
    from taskbridge.schemas.errors import ConfigurationError

    found = {each.id: each for each in letters if each.id in ids}
    missing = [each for each in ids if each not in found]
    if missing:
        raise ConfigurationError(f"no dead letter has the id {', '.join(missing)}: 'taskbridge dlq list' shows them")
    return [found[each] for each in dict.fromkeys(ids)]
