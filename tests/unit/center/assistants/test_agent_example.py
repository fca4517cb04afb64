"""The example of an agent that asks a person: a decision of the task center answers the task that it created."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mcp import Client

from support import http_clients, served_apps
from support.acting import acting
from support.edge.fakes import CORP_ID, SOURCE_SECRET, MemoryPublisher
from support.reconcile import NOW
from taskbridge.center.access.access import Caller
from taskbridge.center.actions.store import ActionRequest
from taskbridge.center.actions.targets import Endpoint, Endpoints
from taskbridge.runtime.standard_webhooks import key_of, new_secret, signed_headers
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from types import ModuleType

    from taskbridge.runtime.database import Database

EXAMPLE = Path(__file__).parents[4] / "examples" / "agent" / "ask_a_person.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ask_a_person", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def decide(port: int, instance_id: str, action: str, *, secret: str = SOURCE_SECRET) -> int:
    data = {"action": action, "instance_id": f"flow:{instance_id}", "actor_id": "bob", "remark": "tonight"}
    body = json.dumps({"type": "task.action.v1", "data": data}).encode()
    headers = signed_headers("m-1", str(int(time.time())), body, keys=[key_of(secret)])
    return http_clients.post(f"http://127.0.0.1:{port}/", content=body, headers=headers).status_code


@pytest.mark.parametrize(("action", "status"), [("agree", "APPROVED"), ("refuse", "REFUSED")])
async def test_an_agent_gets_the_decision_of_a_person(  # noqa: PLR0917 - fixtures
    example: ModuleType, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Any, status: str
) -> None:
    """Through the edge, the lists, the person's decision and its sending; what is between them is passed by hand."""
    publisher = MemoryPublisher()
    monkeypatch.setattr(served_apps, "MemoryPublisher", lambda: publisher)
    with served_apps.serving(served_apps.edge_app(tmp_path, bearer="")) as url:
        approvals = example.Approvals(url, "flow", SOURCE_SECRET)
        server = example.listen(approvals, 0)
        port = server.server_address[1]
        async with acting(database) as world, Client(example.tools(approvals)) as agent:
            world.clock.pass_s(time.time() - NOW / 1000)
            world.endpoints = Endpoints(
                {(CORP_ID, "flow"): Endpoint(f"http://127.0.0.1:{port}/", key_of(SOURCE_SECRET))}
            )
            task = {"title": "Restart web-1", "text": "It has no memory left.", "assignees": ["bob"], "wait_s": 1}
            asked = (await agent.call_tool("request_approval", task)).structured_content
            assert asked is not None
            assert asked["status"] == "PENDING"
            its = {"instance_id": asked["instance_id"]}
            forged = await asyncio.to_thread(decide, port, asked["instance_id"], action, secret=new_secret())
            unknown = await asyncio.to_thread(decide, port, asked["instance_id"], "hand_over")
            assert (forged, unknown) == (401, 409)
            world.arrive(*publisher.published)
            wanted = ActionRequest("bob", f"flow:{asked['instance_id']}", "1", action, "", "tonight")
            bob, at = Caller("sso", corp_id=CORP_ID, user_id="bob"), world.clock.now_ms()
            world.store.request(bob, [wanted], world.systems, address="", now=at)
            await world.work()
            found = (await agent.call_tool("approval_outcome", {**its, "wait_s": 30})).structured_content
            assert found is not None
            assert (found["status"], found["by"], found["remark"]) == (status, "bob", "tonight")
            world.arrive(*publisher.published[1:])
            await world.work()
            assert world.statuses == [("DONE", "")]
        server.shutdown()
        server.server_close()
    created, completed = publisher.published
    assert (created.action, created.recipient_ids, created.title) == (Action.CREATED, ("bob",), "Restart web-1")
    assert (completed.action, completed.actor_id) == (Action.COMPLETED, "bob")
    assert created.instance_id == completed.instance_id == f"flow:{found['instance_id']}"
