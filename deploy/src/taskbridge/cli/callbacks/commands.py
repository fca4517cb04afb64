"""The commands ``taskbridge send`` and ``sign``: sign and post one callback, as Yida or another system does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from taskbridge.cli.options import DataDir, EdgeUrl, Json, edge_url, example
from taskbridge.cli.terminal import json_line, say

# Commands import what they need when they run, as in program.py.

SEND_EXAMPLES = example(
    "taskbridge send complete --url http://127.0.0.1:8400 --token SECRET -p appType=APP_1 \\",
    "-p corpId=ding1 -p formInstId=I-1 -p taskId=T-1 -p actualWorkId=user1",
    "taskbridge send create --source flowable --secret whsec_SECRET -p app_type=leave -p instance_id=I-1 \\",
    "-p task_id=T-1 -p recipient_ids=user1,user2 -p title=Leave",
)
SIGN_EXAMPLES = example("taskbridge sign --token SECRET -p appType=APP_1 -p corpId=ding1 -p formInstId=I-1")

Token = Annotated[
    str,
    typer.Option(
        help="The app's system token. The environment variable keeps it out of the shell's history.",
        envvar="TASKBRIDGE_SYSTEM_TOKEN",
    ),
]
SystemToken = Annotated[
    str | None, typer.Option("--token", help="The app's system token.", envvar="TASKBRIDGE_SYSTEM_TOKEN")
]
SourceName = Annotated[
    str | None, typer.Option(help="Post a CloudEvent as this source, instead of a callback as Yida.")
]
Secret = Annotated[
    str | None, typer.Option(help="With --source: its whsec_ secret.", envvar="TASKBRIDGE_SOURCE_SECRET")
]
DataFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="With --source: a file with a JSON object; -p adds to it."),
]
Parameters = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="May be repeated.")
]
TaskFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="File with the value of the parameter 'task'.")
]
Encoding = Annotated[
    Literal["json", "form", "multipart", "query"],
    typer.Option(help="Encoding of the parameters; Yida offers all of these."),
]


def send(
    action: Annotated[
        Literal["create", "complete", "cancel", "delete", "cc"], typer.Argument(help="What happened to the task.")
    ],
    token: SystemToken = None,
    url: EdgeUrl = None,
    parameter: Parameters = None,
    task_file: TaskFile = None,
    encoding: Encoding = "form",
    source: SourceName = None,
    secret: Secret = None,
    data_file: DataFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Sign and post one callback as Yida does, adding dateTime if missing; or as another system does."""
    from taskbridge.cli.callbacks.sending import Sender

    parameters = _parameters(parameter, task_file)
    with Sender(edge_url(url, data_dir)) as sender:
        if source is None:
            answer = sender.post(action, parameters, system_token=_token(token), encoding=encoding)
        else:
            data = _data(data_file) | {name: _value(text) for name, text in parameters.items()}
            answer = sender.post_message(action, data, source=source, secret=_secret(secret))
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
    """Print the signature of the parameters and the signed text, with the token masked."""
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


def _token(token: str | None) -> str:
    if token is None:
        raise typer.BadParameter("is required, unless --source and --secret are given", param_hint="--token")
    if not token.strip():
        raise typer.BadParameter("must not be empty", param_hint="--token")
    return token


def _secret(secret: str | None) -> str:
    from taskbridge.edge.verification.webhooks import key_of

    try:
        key_of(secret or "")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--secret") from None
    return secret or ""


def _value(text: str) -> Any:
    """JSON objects and lists are parsed; anything else is a string."""
    if text.startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def _data(data_file: Path | None) -> dict[str, Any]:
    if data_file is None:
        return {}
    try:
        found = json.loads(data_file.read_bytes())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{data_file} is not valid JSON: {error}", param_hint="--data-file") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{data_file} is not a JSON object", param_hint="--data-file")
    return cast("dict[str, Any]", found)


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
            raise typer.BadParameter(f"{task_file} is not UTF-8 text: {error}", param_hint="--task-file") from error
    return parameters
