"""The program ``taskbridge``: every command and its help. Each command is implemented in its own module."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from taskbridge.cli import bench, callbacks, doctor, erasure, local_stack, reconcile, services, status, tokens, topics
from taskbridge.cli.imports import forms_app, people_app
from taskbridge.cli.schemas import schemas_app
from taskbridge.cli.set_aside import ALIASES, set_aside_app
from taskbridge.cli.spool import spool_app
from taskbridge.cli.terminal import say
from taskbridge.cli.webhooks import webhooks_app
from taskbridge.schemas.errors import TaskbridgeError

# Commands import what they need when they run: `taskbridge --help` must not load Kafka, FastAPI and Faust first.

GROUPS = {
    "Start": {
        "demo": "Start everything, and show the life of three requests",
        "up": "Run Kafka, the registry and all services until Ctrl-C",
        "edge": "Run the edge, which receives callbacks",
        "streams": "Run streams, rebuild states, or republish entries",
        "center": "Run the task center, or maintain its database",
        "webhooks": "Run webhooks, or operate its endpoints",
        "dingtalk-approvals": "Run the receiver of DingTalk's own approvals",
    },
    "Look": {
        "status": "Show the whole system on one screen",
        "doctor": "Check an environment, and say what to do",
        "tail": "Print the records of a topic",
        "tokens": "Print when each system token was last used",
    },
    "Repair": {
        "set-aside": "List, show and replay what could not be processed",
        "spool": "Check the events on the edge's disk",
        "reconcile": "Find and repair callbacks that never arrived",
        "backfill": "Import the history of an app",
    },
    "Set up": {
        "topics": "Create and check topics, and print permissions",
        "schemas": "Register and check schemas",
        "token": "Create API tokens, and secrets of other systems",
        "apps": "Bring Yida's apps into the credentials file",
        "people": "Import and erase people",
        "forms": "Import the labels of form fields",
    },
    "Try": {
        "simulate": "Simulate a company at work",
        "send": "Sign and post one callback",
        "sign": "Print the signature of a callback",
        "bench": "Run a benchmark from a checkout",
    },
}
"""The commands as ``taskbridge --help`` lists them: summaries fit into a line."""


class Program(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept the old names of commands too, as their present ones."""
        if present := ALIASES.get(" ".join(args[:2])):
            args = ["set-aside", *present, *args[2:]]
        elif args and args[0] in ("quarantine", "dlq"):
            args = ["set-aside", *args[1:]]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the overridden signature
        longest = max(map(len, self.commands))
        for title, summaries in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(longest), each) for name, each in summaries.items()])


class Group(TyperGroup):
    """Commands with the first sentence of their help, which is not cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(sys.maxsize)) for name in self.list_commands(ctx)]
            )


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
