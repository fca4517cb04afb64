"""An agent asks a person before it does something, such as to restart a server: an MCP server, next to the agent.

    SOURCE_SECRET=whsec_… python ask_a_person.py --edge URL --source NAME --port PORT

The agent calls ``request_approval`` over stdio. This program creates a task of the source at the edge, and its
``action_url`` is ``http://THIS-HOST:PORT/``: people decide in the task center. The secret stays here: the agent never
sees it. What was asked is in memory only: a restart forgets it, and the agent asks again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import os
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Annotated, Any

from mcp.server import MCPServer
from pydantic import Field

TOLERANCE_S = 300
LONGEST_S = 600
BODY_MAX = 64 * 1024


class Approvals:
    """The tasks that this program asked for, and their outcomes."""

    def __init__(self, edge: str, source: str, secret: str) -> None:
        self._edge, self._source = edge.rstrip("/"), source
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._outcomes: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def request_approval(
        self,
        title: Annotated[str, Field(max_length=200)],
        text: Annotated[str, Field(max_length=2000, description="What is to be done, and why.")],
        assignees: Annotated[list[str], Field(min_length=1, max_length=20, description="User ids.")],
        fields: Annotated[dict[str, str], Field(max_length=20)] | None = None,
        wait_s: Annotated[int, Field(ge=1, le=LONGEST_S)] = 300,
    ) -> dict[str, Any]:
        """Ask people for an approval, and wait for it. Go on only if status is APPROVED."""
        instance_id, asked = uuid.uuid4().hex, {"text": text, **(fields or {})}
        self._outcomes[instance_id] = asyncio.get_running_loop().create_future()
        task = {"title": title, "recipient_ids": assignees, "form_data": asked, "process_name": "Approval for an agent"}
        await asyncio.to_thread(self.post, "create", instance_id, task)
        return await self.approval_outcome(instance_id, wait_s)

    async def approval_outcome(
        self, instance_id: str, wait_s: Annotated[int, Field(ge=0, le=LONGEST_S)] = 0
    ) -> dict[str, Any]:
        """Say whether an approval that was asked for is APPROVED, REFUSED, or still PENDING."""
        asked = self._outcomes.get(instance_id)
        if asked is None:
            return {"instance_id": instance_id, "status": "UNKNOWN"}
        await asyncio.wait([asked], timeout=wait_s)
        return asked.result() if asked.done() else {"instance_id": instance_id, "status": "PENDING"}

    def decided(self, data: dict[str, Any]) -> str | None:
        """A decision of the task center: why it cannot be carried out, or None after it was confirmed at the edge."""
        instance_id = str(data["instance_id"]).removeprefix(f"{self._source}:")
        asked, approved = self._outcomes.get(instance_id), data["action"] == "agree"
        if asked is None:
            return "the program that asked does not run any more"
        if data["action"] not in ("agree", "refuse"):
            return "agree or refuse: nothing else is possible"
        decision = {"actor_id": data["actor_id"], "outcome": data["action"], "remark": data["remark"]}
        self.post("complete", instance_id, decision)
        status = "APPROVED" if approved else "REFUSED"
        outcome = {"instance_id": instance_id, "status": status, "by": data["actor_id"], "remark": data["remark"]}
        asked.get_loop().call_soon_threadsafe(lambda: asked.done() or asked.set_result(outcome))
        return None

    def post(self, action: str, instance_id: str, data: dict[str, Any]) -> None:
        """Send an event, three times if the edge does not accept it. A repeat changes nothing: the id is the same."""
        content = {"app_type": "agent", "instance_id": instance_id, "task_id": "1", **data}
        message_id = f"{instance_id}-{action}"
        event = {"specversion": "1.0", "id": message_id, "source": f"/{self._source}", "data": content}
        body = json.dumps({**event, "type": f"task.{action}"}).encode()
        for attempt in (1, 2, 3):
            now = str(int(time.time()))
            headers = {
                "content-type": "application/cloudevents+json",
                "webhook-id": message_id,
                "webhook-timestamp": now,
                "webhook-signature": self._sign(message_id, now, body),
            }
            url = f"{self._edge}/sources/{self._source}/tasks/{action}"
            try:
                with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10):  # noqa: S310
                    return
            except OSError:
                if attempt == 3:  # noqa: PLR2004
                    raise

    def is_signed(self, headers: Any, body: bytes) -> bool:
        """Whether the task center sent this, within five minutes."""
        message_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not at.isdecimal() or abs(time.time() - int(at)) > TOLERANCE_S:
            return False
        own = self._sign(message_id, at, body)
        return any(hmac.compare_digest(own, each) for each in headers.get("webhook-signature", "").split())

    def _sign(self, message_id: str, at: str, body: bytes) -> str:
        digest = hmac.new(self._key, f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
        return f"v1,{base64.b64encode(digest).decode()}"


def listen(approvals: Approvals, port: int) -> ThreadingHTTPServer:
    """The ``action_url``, in threads of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("content-length") or 0), BODY_MAX))
            if not approvals.is_signed(self.headers, body):
                return self._answer(401, "the signature does not match")
            problem = approvals.decided(json.loads(body)["data"])
            return self._answer(200 if problem is None else 409, problem)

        def _answer(self, status: int, detail: str | None) -> None:
            answer = json.dumps({"detail": detail}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/problem+json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library's
            """Stdout belongs to the protocol."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def tools(approvals: Approvals) -> MCPServer:
    server = MCPServer("ask-a-person", instructions="Ask a person before you change anything that others use.")
    server.add_tool(approvals.request_approval)
    server.add_tool(approvals.approval_outcome)
    return server


def main() -> None:
    given = argparse.ArgumentParser(description="Serve an agent that asks people for approvals.")
    given.add_argument("--edge", default="http://127.0.0.1:8400", help="URL of the edge")
    given.add_argument("--source", required=True, help="name of the source in the edge's credentials file")
    given.add_argument("--port", type=int, default=8600, help="port of the action_url, on loopback")
    options = given.parse_args()
    approvals = Approvals(options.edge, options.source, os.environ["SOURCE_SECRET"])
    listen(approvals, options.port)
    tools(approvals).run()


if __name__ == "__main__":
    main()
