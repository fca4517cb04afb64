"""The page of all commands: the output of ``--help``, from the program itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import typer.main

from reference_pages.markdown import also, code, fenced, listed, page, prose, repeated
from taskbridge.cli.program import app

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reference_pages.markdown import Row

_INTRODUCTION = """\
`uv run taskbridge COMMAND --help` shows the same. Exit code 0 is success, 1 comes with one line that says what is
wrong and what to do, 2 is wrong usage. Commands that query a running bridge find the one in `taskbridge-data`, or in
`--data-dir`; those that print take `--json` and print one JSON object a line."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    yield from _below("taskbridge", typer.main.get_command(app))


def commands_page() -> str:
    found = [*commands()]
    shared = repeated((_rows(command) for _, command in found), at_least=4)
    common = f"## Options of several commands\n\n{listed(shared)}"
    return page("Commands", _INTRODUCTION, common, *(_section(name, command, shared) for name, command in found))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield name, command
    for word, each in below.items():
        yield from _below(f"{name} {word}", each)


def _section(name: str, command: Any, shared: Sequence[Row]) -> str:
    parts = [f"## {name}", *(prose(each) for each in (command.help or "").split("\n\n"))]
    rows = _rows(command)
    if own := [each for each in rows if each not in shared]:
        parts.append(listed(own))
    parts.append(also(rows, shared))
    if examples := _examples(command.epilog or ""):
        parts.append(fenced("\n".join(examples)))
    return "\n\n".join(each for each in parts if each)


def _rows(command: Any) -> list[Row]:
    return [_row(each) for each in command.params]


def _row(parameter: Any) -> Row:
    is_option = parameter.param_type_name == "option"
    names = ", ".join(code(each) for each in [*parameter.opts, *parameter.secondary_opts])
    names = names if is_option else code(parameter.name.upper())
    kind = parameter.type_descriptor.annotation
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    meaning = prose(getattr(parameter, "help", None) or "")
    if choices:
        meaning = f"{meaning} One of {', '.join(code(str(each)) for each in choices)}.".strip()
    if variable := getattr(parameter, "envvar", None):
        meaning = f"{meaning} Also by {code(variable)}.".strip()
    return names, f"{meaning} {_default(parameter, meaning)}".strip()


def _default(parameter: Any, meaning: str) -> str:
    if parameter.required:
        return "Required."
    value = parameter.default
    is_shown = value in (None, "") or isinstance(value, bool) or "Default:" in meaning
    return "" if is_shown else f"Default: {code(str(value))}."


def _examples(epilog: str) -> list[str]:
    """The lines of a command's example; those that go on in the next are indented there."""
    lines = [each for each in re.split(r"\n+", epilog) if each.strip()][1:]
    return [f"  {line}" if at and lines[at - 1].endswith("\\") else line for at, line in enumerate(lines)]
