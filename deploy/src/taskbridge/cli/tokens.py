"""The commands ``taskbridge tokens`` and ``token``: report the use of system tokens, create tokens and secrets."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - typer resolves the parameters' types
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import Credentials, DataDir, Json, example
from taskbridge.cli.terminal import json_line, progress, say
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


commands = typer.Typer()

token_app = typer.Typer(
    help="Create tokens of the task center's API, and secrets of other systems that send tasks.", no_args_is_help=True
)


@commands.command(epilog=example("taskbridge tokens", "taskbridge tokens --data-dir /var/lib/taskbridge --json"))
def tokens(
    credentials: Credentials = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Print when each system token was last used, so that you can retire old ones. Tokens are named, never shown."""
    from taskbridge.cli.data_folder import data_folder, edge_folder

    path = credentials or data_folder(data_dir).credentials
    reports = report_tokens(path, edge_folder(data_dir))
    for each in reports:
        used = f"last used {each['last_used']}" if each["last_used"] else f"never used since {each['recorded_since']}"
        say(json_line(each) if as_json else f"{each['app_type']}  {each['token']}  {each['place']}  {used}")
    if not reports:
        progress(f"{path} has no system token")


def report_tokens(credentials: Path, data_dir: Path) -> list[dict[str, str | None]]:
    """The last use of each token, in the order of the credentials file. Times are ISO 8601, UTC.

    ``recorded_since``: a token without ``last_used`` was not used since then.

    Raises:
        FileBroken: the credentials cannot be read.
        UseUnknown: ``data_dir`` has no record, so no token can be called unused.
    """
    from taskbridge.edge.verification.credentials import CredentialsFile, read_use

    found = CredentialsFile(credentials).current.tokens
    use = read_use(data_dir)
    return [
        {
            "app_type": each.app_type,
            "token": each.fingerprint,
            "place": each.place,
            "last_used": _iso(use.last[each.fingerprint]) if each.fingerprint in use.last else None,
            "recorded_since": _iso(use.since),
        }
        for each in found
    ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@token_app.command("new", epilog=example("taskbridge token new portal --corps ding5d17e3add038d445"))
def token_new(
    name: Annotated[str, typer.Argument(help="Name of the client program; shown to it and in logs.")],
    corps: Annotated[str, typer.Option(help="Corps that it may query, comma-separated; * for all.")],
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Create a token. It is printed once and not stored; CENTER_API_TOKENS_FILE holds only its digest."""
    from taskbridge.runtime.tokens import digest_of, new_token, parse_tokens

    token = new_token()
    named = [each.strip() for each in corps.split(",")]
    stored: dict[str, Any] = {"name": name, "sha256": digest_of(token), "corps": named}
    entry = _entry("tokens", stored, parse_tokens)
    if as_json:
        say(json_line({**stored, "token": token}))
        return
    _show("the token, shown only once; configure it in the client:", token)
    _show("add this to the file of CENTER_API_TOKENS_FILE; changes apply within a second or two:", entry)


@token_app.command("push", epilog=example("taskbridge token push push-key.pem --subject mailto:it@company.example"))
def token_push(
    file: Annotated[Path, typer.Argument(help="Where the private key is written; an existing file is not replaced.")],
    subject: Annotated[str, typer.Option(help="Whom push services may write to: mailto:… or https://….")],
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Create the organisation's key for push messages. A new key ends all devices' subscriptions."""
    from taskbridge.center.reminders.web_push import PushKey, new_key

    if not subject.startswith(("mailto:", "https://")):
        raise typer.BadParameter("must be mailto:… or https://…", param_hint="--subject")
    pem = new_key()
    try:
        with open(file, "x", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            opened.write(pem)
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}") from None
    if as_json:
        say(json_line({"file": str(file), "public_key": PushKey(pem, subject).public}))
        return
    fields = {"key": f"file:{file.absolute()}", "subject": subject}
    entry = "\n".join(["", "[push]", *(f"{name} = {json_line(each)}" for name, each in fields.items())])
    _show("add this to the file of CENTER_REMINDERS_FILE; changes apply within a second or two:", entry)


@token_app.command("source", epilog=example("taskbridge token source flowable --corp ding5d17e3add038d445"))
def token_source(
    name: Annotated[str, typer.Argument(help="Name of the system; it posts to /sources/NAME/tasks/.")],
    corp: Annotated[str, typer.Option(help="Corp of its tasks.")],
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Create a secret with which another system signs. It is printed once; add it to the edge's credentials file."""
    from taskbridge.edge.verification.credentials import parse_credentials
    from taskbridge.runtime.standard_webhooks import new_secret

    secret = new_secret()
    entry = _entry("sources", {"name": name, "corp_id": corp, "secrets": [secret]}, parse_credentials)
    if as_json:
        say(json_line({"name": name, "secret": secret, "corp_id": corp}))
        return
    _show("the secret, shown only once; configure it in the system that signs:", secret)
    _show("add this to the edge's credentials file; changes apply within a second or two:", entry)


def _entry(table: str, fields: Mapping[str, Any], parse: Callable[[str], object]) -> str:
    from taskbridge.runtime.settings import FileBroken

    # JSON's strings and lists of strings are TOML's too.
    entry = "\n".join([f"[[{table}]]", *(f"{name} = {json_line(each)}" for name, each in fields.items())])
    try:
        parse(entry)
    except FileBroken as error:
        raise typer.BadParameter(str(error)) from error
    return f"\n{entry}"


def _show(what: str, text: str) -> None:
    progress(what)
    say(text)
