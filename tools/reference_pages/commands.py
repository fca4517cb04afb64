"""The page of all commands with the names of their options, from the program itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer.main

from reference_pages.markdown import code, listed, page, prose
from taskbridge.cli.program import app

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTRODUCTION = """\
Run a command with `uv run`; `taskbridge COMMAND --help` explains its options, with examples. Exit code 0 is success, 1
comes with one line that says what is wrong and what to do, 2 is wrong usage. Commands that query a running bridge find
the one in `taskbridge-data`, or in `--data-dir`; those that print take `--json` and print one JSON object a line."""


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
    options = [code(each.opts[0]) for each in command.params if each.param_type_name == "option"]
    return f"{prose(command.help or '')}{' Options: ' if options else ''}{', '.join(options)}"
