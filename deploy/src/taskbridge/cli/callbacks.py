"""The commands ``taskbridge send`` and ``sign``: sign and post one callback, as Yida or another system does."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from taskbridge.cli.options import DataDir, EdgeUrl, Json, example, service_url
from taskbridge.cli.terminal import json_line, say
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from taskbridge.edge.sender import EncodedCallback, Encoding


_TIMEOUT_S, _ANSWER_S = 10, 60
"""To connect, and for the answer: an edge whose disk is slow answers late, and a second post would be a duplicate."""

commands = typer.Typer()

SystemToken = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="The app's system token. The environment variable keeps it out of the shell's history.",
        envvar="TASKBRIDGE_SYSTEM_TOKEN",
    ),
]
SourceName = Annotated[
    str | None, typer.Option(help="Post a CloudEvent as this source, instead of a callback as Yida.")
]
Secret = Annotated[
    str | None, typer.Option(help="With --source: its whsec_ secret.", envvar="TASKBRIDGE_SOURCE_SECRET")
]
Parameters = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="May be repeated.")
]
TaskFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="File with the value of the parameter 'task'.")
]
EncodingOption = Annotated[
    Literal["json", "form", "multipart", "query"],
    typer.Option(help="Encoding of the parameters; Yida offers all of these."),
]


@commands.command(
    epilog=example(
        "taskbridge send complete --url http://127.0.0.1:8400 --token SECRET -p appType=APP_1 \\",
        "-p corpId=ding1 -p formInstId=I-1 -p taskId=T-1 -p actualWorkId=user1",
        "taskbridge send create --source flowable --secret whsec_SECRET -p app_type=leave -p instance_id=I-1 \\",
        "-p task_id=T-1 -p recipient_ids=user1,user2 -p title=Leave",
    )
)
def send(
    action: Annotated[
        Literal["create", "complete", "cancel", "delete", "cc"], typer.Argument(help="What happened to the task.")
    ],
    token: SystemToken = None,
    url: EdgeUrl = None,
    parameter: Parameters = None,
    task_file: TaskFile = None,
    encoding: EncodingOption = "form",
    source: SourceName = None,
    secret: Secret = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Sign and post one callback as Yida does, adding dateTime if missing; or as another system does."""
    parameters = _parameters(parameter, task_file)
    with Sender(service_url("edge", url, data_dir)) as sender:
        if source is None:
            answer = sender.post(action, parameters, system_token=_token(token), encoding=encoding)
        else:
            data = {name: _value(text) for name, text in parameters.items()}
            answer = sender.post_message(action, data, source=source, secret=_secret(secret))
    found = {"status": answer.status, "body": answer.body}
    say(json_line(found) if as_json else f"{answer.status} {json_line(answer.body)}")
    if not answer.accepted:
        raise typer.Exit(1)


@commands.command(epilog=example("taskbridge sign --token SECRET -p appType=APP_1 -p corpId=ding1 -p formInstId=I-1"))
def sign(
    token: SystemToken = None,
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
    text = f"sign       {found['sign']}\nkey order  {' '.join(found['key_order'])}\ncanonical  {found['canonical']}"
    say(json_line(found) if as_json else text)


def _token(token: str | None) -> str:
    if token is None or not token.strip():
        raise typer.BadParameter("is required and must not be empty", param_hint="--token")
    return token


def _secret(secret: str | None) -> str:
    from taskbridge.runtime.standard_webhooks import key_of

    try:
        key_of(secret or "")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--secret") from None
    return secret or ""


def _value(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text) if text.startswith(("{", "[")) else text
    return text


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


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any
    milliseconds: float

    @property
    def accepted(self) -> bool:
        return self.status == HTTPStatus.OK


class Sender:
    """A client of one edge, with one connection. It raises OperatorError if the edge does not answer."""

    def __init__(self, url: str, bearer_token: str | None = None) -> None:
        from taskbridge.runtime.inside_http import bearer, inside_client

        self._url = url
        self._client = inside_client(timeout_s=_TIMEOUT_S, answer_s=_ANSWER_S, headers=bearer(bearer_token))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post(self, action: str, parameters: Mapping[str, str], *, system_token: str, encoding: Encoding) -> Answer:
        from taskbridge.edge.sender import encode_callback, signed

        stamped = {"dateTime": str(time.time_ns() // 1_000_000), **parameters}
        request = encode_callback(signed(stamped, system_token=system_token), encoding)
        return self._post(f"/yida/tasks/{action}" + (f"?{request.query}" if request.query else ""), request)

    def post_message(self, action: str, data: Mapping[str, Any], *, source: str, secret: str) -> Answer:
        from taskbridge.edge.sender import signed_message

        name, at_ms = f"msg_{uuid.uuid4().hex}", time.time_ns() // 1_000_000
        request = signed_message(data, source=source, action=action, secret=secret, message_id=name, at_ms=at_ms)
        return self._post(f"/sources/{source}/tasks/{action}", request)

    def _post(self, target: str, request: EncodedCallback) -> Answer:
        from taskbridge.runtime.inside_http import NO_ANSWER

        try:
            started = time.perf_counter()
            address = self._url.rstrip("/") + target
            response = self._client.post(address, content=request.body, headers=dict(request.headers))
            milliseconds = (time.perf_counter() - started) * 1000
        except NO_ANSWER as error:
            raise OperatorError(
                f"the edge at {self._url} does not answer: {str(error).rstrip('.')}. Start it, or check --url"
            ) from error
        try:
            body = response.json()
        except ValueError:
            body = response.text
        return Answer(response.status_code, body, milliseconds)
