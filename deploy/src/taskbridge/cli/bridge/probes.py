"""Probes of the services that the bridge started: is it ready, and is the spool of an edge broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from taskbridge.edge.delivery.publisher import SPOOL_IS_BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _client() -> httpx2.Client:
    """A client whose requests each use a new connection, so that they reach any of several workers.

    Made once: a new client reads the certificates of the system, which takes about thirty milliseconds.
    """
    return httpx2.Client(timeout=2, trust_env=False, headers={"Connection": "close"})


def answers_ready(
    url: str, who: Mapping[str, str], *, can_be_ready: Callable[[], bool] = lambda: True
) -> Callable[[], bool]:
    """A probe: is the service that we started ready? Another service at its address does not count.

    A service that cannot be ready yet only has to answer.
    """
    client = _client()

    def ready() -> bool:
        try:
            answer = client.get(f"{url}/readyz")
        except httpx2.HTTPError:
            return False
        ours = all(answer.headers.get(name) == said for name, said in who.items())
        return ours and (answer.is_success or not can_be_ready())

    return ready


def broken_spool(url: str) -> Callable[[], str | None]:
    """A probe: is an edge's spool broken, so that only Kafka stores callbacks? A restart recovers every intact row."""
    client = _client()

    def problem() -> str | None:
        try:
            said = str(client.get(f"{url}/readyz").json()["spool"])
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return None
        head, found, why = said.partition(SPOOL_IS_BROKEN)
        return f"its spool is broken{why}" if found and not head else None

    return problem
