"""What the bridge asks of the services it started: whether they are ready, and whether an edge's spool is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from taskbridge.edge.delivery.publisher import SPOOL_IS_BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _asking() -> httpx2.Client:
    """For one question after the other, each on a connection of its own, which reaches any of several workers.

    Kept: a client made for each would read the certificates of the world each time, some thirty milliseconds.
    """
    return httpx2.Client(timeout=2, trust_env=False, headers={"Connection": "close"})


def answers_ready(
    url: str, who: Mapping[str, str], *, can_be_ready: Callable[[], bool] = lambda: True
) -> Callable[[], bool]:
    """Tells whether the service that we started is ready: another that has its address is not taken for it.

    A service that cannot be ready yet needs only to answer.
    """
    client = _asking()

    def ready() -> bool:
        try:
            answer = client.get(f"{url}/readyz")
        except httpx2.HTTPError:
            return False
        ours = all(answer.headers.get(name) == said for name, said in who.items())
        return ours and (answer.is_success or not can_be_ready())

    return ready


def broken_spool(url: str) -> Callable[[], str | None]:
    """Tells whether an edge's spool is broken: Kafka alone keeps callbacks then. A start saves every intact row."""
    client = _asking()

    def problem() -> str | None:
        try:
            said = str(client.get(f"{url}/readyz").json()["spool"])
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return None
        head, found, why = said.partition(SPOOL_IS_BROKEN)
        return f"its spool is broken{why}" if found and not head else None

    return problem
