"""Proves, before anything is measured, that all servers do the same work: same event, same record, same refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
from tests.bench.errors import NotCounted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.events_topic import EventsTopic
    from tests.bench.edge.servers import Server

_SAMPLES = (0, 1, 4999)
_OK, _UNVERIFIED, _MALFORMED = 200, 401, 400


def prove_same_work(servers: Sequence[Server], kinds: Sequence[Kind], topic: EventsTopic) -> int:
    """Compare what each server makes of some callbacks with what the first makes of them; returns how many were.

    Raises:
        NotCounted: something differs; the message says what.
    """
    compared = 0
    for kind in kinds:
        for number in _SAMPLES:
            expected: Any = None
            for server in servers:
                found = _answer_and_record(server, kind, kind.bodies[number], topic)
                expected = found if expected is None else expected
                if found != expected and server.store == "kafka":
                    raise NotCounted(f"{server.name} makes another record of a {kind.name}: {found} is not {expected}")
                compared += 1
        for server in servers:
            _refuses(server, kind, kind.forged, _UNVERIFIED)
            _refuses(server, kind, kind.bodies[0].replace(b"%7B", b"%7B%7B").replace(b"{", b"{{"), _MALFORMED)
    return compared


def _answer_and_record(server: Server, kind: Kind, body: bytes, topic: EventsTopic) -> object:
    before = topic.ends()
    response = _post(server, kind, body)
    if response.status_code != _OK:
        raise NotCounted(f"{server.name} answers {response.status_code} to a {kind.name}")
    answer: dict[str, Any] = response.json()
    event_id = answer["eventId"]
    if answer != {"success": True, "eventId": event_id, "durability": server.store}:
        raise NotCounted(f"{server.name} answers {answer}")
    return topic.find(event_id, after=before) if server.store == "kafka" else None


def _refuses(server: Server, kind: Kind, body: bytes, status: int) -> None:
    found = _post(server, kind, body).status_code
    if found != status:
        raise NotCounted(f"{server.name} answers {found}, not {status}, to a bad {kind.name}")


def _post(server: Server, kind: Kind, body: bytes) -> httpx2.Response:
    headers = {"Content-Type": kind.content_type}
    return httpx2.post(server.url + kind.url_path, content=body, headers=headers, timeout=10, trust_env=False)
