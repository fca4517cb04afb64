"""``taskbridge token``: tokens for programs that ask the streams service."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from taskbridge.cli.options import Json, example
from taskbridge.cli.terminal import progress, say

token_app = typer.Typer(help="Tokens of the streams service's API.", no_args_is_help=True)


@token_app.command("new", epilog=example("taskbridge token new portal --corps ding5d17e3add038d445"))
def token_new(
    name: Annotated[str, typer.Argument(help="Names the program that will ask; shown to it, and in logs.")],
    corps: Annotated[str, typer.Option(help="The corps that it may ask about, comma-separated; * for all.")],
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Make a token. It is printed once and kept nowhere; what goes into STREAMS_API_TOKENS_FILE is its digest."""
    from taskbridge.streams.api.tokens import TokensBroken, digest_of, new_token, parse_tokens

    token = new_token()
    named = [each.strip() for each in corps.split(",")]
    # JSON's strings and lists of strings are TOML's too.
    entry = "\n".join(
        (
            "[[tokens]]",
            f"name = {json.dumps(name, ensure_ascii=False)}",
            f'sha256 = "{digest_of(token)}"',
            f"corps = {json.dumps(named, ensure_ascii=False)}",
        )
    )
    try:
        parse_tokens(entry)
    except TokensBroken as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        say(json.dumps({"name": name, "token": token, "sha256": digest_of(token), "corps": named}))
        return
    progress("the token, which is shown this once: give it to the program")
    say(token)
    progress("add this to the file that STREAMS_API_TOKENS_FILE names; it is read again within a second or two")
    say(f"\n{entry}")
