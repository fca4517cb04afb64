"""The program ``taskbridge``: every command and its help. Each command is implemented in its own module."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from taskbridge.cli import (
    bench,
    callbacks,
    doctor,
    erasure,
    land,
    local_stack,
    reconcile,
    services,
    status,
    tokens,
    topics,
)
from taskbridge.cli.imports import forms_app, people_app
from taskbridge.cli.schemas import schemas_app
from taskbridge.cli.set_aside import ALIASES, set_aside_app
from taskbridge.cli.spool import spool_app
from taskbridge.cli.terminal import say
from taskbridge.cli.webhooks import webhooks_app
from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Commands import what they need when they run: `taskbridge --help` must not load Kafka, FastAPI and Faust first.

GROUPS = {
    "Start": ("demo", "up", "edge", "streams", "center", "webhooks", "land", "dingtalk-approvals"),
    "Look": ("status", "doctor", "tail", "tokens"),
    "Repair": ("set-aside", "spool", "reconcile", "backfill"),
    "Set up": ("topics", "schemas", "token", "apps", "people", "forms"),
    "Try": ("simulate", "send", "sign", "bench"),
}


class Group(TyperGroup):
    """Commands with the first sentence of their help, which is not cut."""

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        longest = max(map(len, self.commands))
        for title, names in (self.sections or {"Commands": self.list_commands(ctx)}).items():
            summaries = {name: self.commands[name].get_short_help_str(sys.maxsize) for name in names}
            with formatter.section(title):
                formatter.write_dl([(name.ljust(longest), each) for name, each in summaries.items()])


class Program(Group):
    sections = GROUPS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept the old names of commands too, as their present ones."""
        if present := ALIASES.get(" ".join(args[:2])):
            args = ["set-aside", *present, *args[2:]]
        elif args and args[0] in ("quarantine", "dlq"):
            args = ["set-aside", *args[1:]]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="taskbridge",
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module in (reconcile, local_stack, doctor, status, services, callbacks, topics, tokens, bench):
    app.add_typer(_module.commands)
people_app.add_typer(erasure.commands)
for _name, _group in {
    "topics": topics.topics_app,
    "schemas": schemas_app,
    "set-aside": set_aside_app,
    "spool": spool_app,
    "people": people_app,
    "forms": forms_app,
    "token": tokens.token_app,
    "reconcile": reconcile.reconcile_app,
    "apps": reconcile.apps_app,
    "webhooks": webhooks_app,
    "land": land.land_app,
}.items():
    app.add_typer(_group, name=_name, cls=Group)


def _print_version(requested: bool) -> None:  # noqa: FBT001 - typer's callback
    if requested:
        from taskbridge.cli.version import version_lines

        for line in version_lines():
            say(line)
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]


@app.callback()
def program(
    version: Version = False,  # noqa: FBT002
) -> None:
    """Bridge Yida's approval-task callbacks to Kafka: verify them, fold them into states, publish notifications."""


def main() -> None:
    """Run the program; exit code 0, 1 for an error in one line, or 2 for wrong usage."""
    try:
        app()
    except TaskbridgeError as error:
        sys.exit(f"taskbridge: {error}")
    except BrokenPipeError:
        # The reader of the output has closed it (`taskbridge tail … | head`): Python must print no error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
