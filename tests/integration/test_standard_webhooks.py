"""What webhooks send is verified by the official libraries of Standard Webhooks for Go and JavaScript."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support import toolchains
from taskbridge.runtime.standard_webhooks import new_secret
from unit.webhooks.receivers import Receiver, attempts

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.consumers]


@pytest.mark.parametrize("language", ["go", pytest.param("javascript", marks=pytest.mark.nightly)])
def test_each_rotated_secret_is_verified_and_everything_else_is_refused(tmp_path: Path, language: str) -> None:
    old, new, receiver = new_secret(), new_secret(), Receiver()
    attempts(tmp_path, receiver, lines=(f'secrets = ["{old}", "{new}"]', 'format = "notification"'))
    [request] = receiver.got
    body = request.body.decode()
    sent = {"secret": old, "headers": request.headers, "body": body}
    late = {**request.headers, "webhook-timestamp": str(int(request.headers["webhook-timestamp"]) - 301)}
    tried = [
        sent,
        {**sent, "secret": new},
        {**sent, "secret": new_secret()},
        {**sent, "body": body.replace("pending", "handled")},
        {**sent, "headers": {**request.headers, "webhook-id": "another"}},
        {**sent, "headers": late},
    ]
    assert tried[3] != sent
    requests = tmp_path / "requests.jsonl"
    requests.write_text("\n".join(map(json.dumps, tried)), "utf-8")

    if language == "go":
        answers = toolchains.run_go("standardwebhooks", "run", ".", str(requests))
    else:
        program = toolchains.npm_installed("standardwebhooks") / "verify.js"
        answers = toolchains.run_node(program, str(requests))

    *verified, secret, changed, another_id, too_old = map(str.lower, answers.splitlines())
    assert verified == ["verified"] * 2
    assert "signature" in secret
    assert "signature" in changed
    assert "signature" in another_id
    assert "old" in too_old
