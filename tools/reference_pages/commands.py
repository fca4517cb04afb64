"""The page of all commands with the names of their options, from the program itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer.main

from reference_pages.markdown import code, listed, page, prose
from taskbridge.cli.program import app

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = ("--bootstrap-servers", "--registry-url", "--data-dir", "--json")
"""Options that mean the same for every command that has them."""

_INTRODUCTION = """\
Run a command with `uv run`; `taskbridge COMMAND --help` explains its options, with examples. Exit code 0 is success, 1
comes with one line that says what is wrong and what to do, 2 is wrong usage. Commands that print take `--json` and
print one JSON object a line.

Commands that need addresses take, in this order: `--bootstrap-servers` and `--registry-url`; the bridge that runs in
`--data-dir`; `TASKBRIDGE_…`; the services' own settings; the bridge in `taskbridge-data`; the default ports. A named
folder without a running bridge is an error. Of an edge without `up`, `--data-dir` is its own folder. These four options
are not repeated below."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    yield from _below("taskbridge", typer.main.get_command(app))


def commands_page() -> str:
    return page("Commands", _INTRODUCTION, listed((code(name), _meaning(command)) for name, command in commands()))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield name, command
    for word, each in below.items():
        yield from _below(f"{name} {word}", each)


def _meaning(command: Any) -> str:
    named = [each.opts[0] for each in command.params if each.param_type_name == "option"]
    options = [code(each) for each in named if each not in SHARED]
    return f"{prose(command.help or '')}{' Options: ' if options else ''}{', '.join(options)}"
