"""The extension that its page shows is installed as the page says, and delivers a notification."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from msgspec.structs import replace

from taskbridge.schemas.events import Change
from taskbridge.webhooks.operations import example
from unit.webhooks.receivers import Receiver, attempts, endpoint_of

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-an-extension.md"


def test_the_format_of_the_page_is_found_and_sends_tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyproject, endpoints = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (module,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(module.splitlines()) <= 40
    project = tomllib.loads(pyproject)["project"]
    ((group, points),) = project["entry-points"].items()
    installed = tmp_path / "acme_tickets-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in points.items())])
    )
    (tmp_path / "acme_tickets.py").write_text(module)
    (tmp_path / "ticket-token").write_text("the-token\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    async def tickets(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"ok": True})

    receiver, lines = Receiver(tickets), tuple(endpoints.strip().splitlines()[-2:])
    added = replace(example(endpoint_of(tmp_path, "https://x.example")), recipient_id="ann", title="请假")
    results = attempts(tmp_path, receiver, added, replace(added, change=Change.REMOVED), lines=lines)

    assert [each.problem for each in results] == ["", ""]
    sent = [json.loads(each.body) for each in receiver.got]
    assert [(each["queue"], each["owner"], each["state"]) for each in sent] == [
        ("approvals", "ann", "open"),
        ("approvals", "ann", "closed"),
    ]
    assert len({each["id"] for each in sent}) == 1
    assert receiver.got[0].headers["authorization"] == "Bearer the-token"
