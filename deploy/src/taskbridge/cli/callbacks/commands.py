"""The commands ``taskbridge send`` and ``sign``: one callback, as Yida would sign and post it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from taskbridge.cli.options import DataDir, EdgeUrl, Json, edge_url, example
from taskbridge.cli.terminal import json_line, say

# Commands import what they need when they run, as in program.py.

SEND_EXAMPLES = example(
    "taskbridge send complete --url http://127.0.0.1:8400 --token SECRET -p appType=APP_1 \\",
    "-p corpId=ding1 -p formInstId=I-1 -p taskId=T-1 -p actualWorkId=user1",
)
SIGN_EXAMPLES = example("taskbridge sign --token SECRET -p appType=APP_1 -p corpId=ding1 -p formInstId=I-1")

Token = Annotated[
    str,
    typer.Option(
        help="The app's system token. The environment variable keeps it out of the shell's history.",
        envvar="TASKBRIDGE_SYSTEM_TOKEN",
    ),
]
Parameters = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="May be repeated.")
]
TaskFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="A file whose text is the 'task' parameter.")
]
Encoding = Annotated[
    Literal["json", "form", "multipart", "query"],
    typer.Option(help="How the parameters are sent: Yida offers all of them."),
]


def send(
    action: Annotated[Literal["create", "complete", "cancel", "delete", "cc"], typer.Argument(help="What happened.")],
    token: Token,
    url: EdgeUrl = None,
    parameter: Parameters = None,
    task_file: TaskFile = None,
    encoding: Encoding = "form",
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Sign and post one callback as Yida would. Adds dateTime where it is not given."""
    from taskbridge.cli.callbacks.sending import post_callback

    parameters = _parameters(parameter, task_file)
    answer = post_callback(edge_url(url, data_dir), action, parameters, system_token=_token(token), encoding=encoding)
    found = {"status": answer.status, "body": answer.body}
    say(json_line(found) if as_json else f"{answer.status} {json_line(answer.body)}")
    if not answer.accepted:
        raise typer.Exit(1)


def sign(
    token: Token,
    parameter: Parameters = None,
    task_file: TaskFile = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Print the signature of these parameters and the text that is signed, with the token masked."""
    from taskbridge.edge.verification import signature

    parameters = _parameters(parameter, task_file)
    found: dict[str, Any] = {
        "sign": signature.sign(parameters, system_token=_token(token)),
        "canonical": signature.canonical_string(parameters) + "***",
        "key_order": signature.canonical_order(parameters),
    }
    if as_json:
        say(json_line(found))
    else:
        say(f"sign       {found['sign']}\nkey order  {' '.join(found['key_order'])}\ncanonical  {found['canonical']}")


def _token(token: str) -> str:
    if not token.strip():
        raise typer.BadParameter("a blank token signs nothing", param_hint="--token")
    return token


def _parameters(given: list[str] | None, task_file: Path | None) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for each in given or []:
        key, separator, value = each.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"'{each}' is not KEY=VALUE", param_hint="-p")
        if key in parameters:
            raise typer.BadParameter(f"'{key}' is given twice", param_hint="-p")
        parameters[key] = value
    if task_file is not None:
        try:
            parameters["task"] = task_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{task_file} is no text in UTF-8: {error}", param_hint="--task-file") from error
    return parameters
