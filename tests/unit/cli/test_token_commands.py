"""``taskbridge token new`` makes what the streams service takes."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from taskbridge.cli.program import app
from taskbridge.streams.api.tokens import parse_tokens


def test_a_new_token_is_good_with_the_entry_that_is_printed() -> None:
    run = CliRunner().invoke(app, ["token", "new", 'the "portal"', "--corps", "ding1, ding2"])
    assert run.exit_code == 0
    token, _, entry = run.stdout.partition("\n")
    found = parse_tokens(entry).find(token)
    assert found is not None
    assert (found.name, found.corps) == ('the "portal"', ("ding1", "ding2"))
    assert token not in entry


def test_the_token_comes_as_json_too() -> None:
    run = CliRunner().invoke(app, ["token", "new", "ops", "--corps", "*", "--json"])
    found = json.loads(run.stdout)
    assert found["corps"] == ["*"]
    assert len(found["token"]) > 40


def test_blank_names_and_corps_are_refused() -> None:
    for arguments in (["token", "new", " ", "--corps", "*"], ["token", "new", "a", "--corps", ""]):
        assert CliRunner().invoke(app, arguments).exit_code == 2
