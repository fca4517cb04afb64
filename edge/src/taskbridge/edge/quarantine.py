"""Stores rejected callbacks as received, within limits: Yida sends nothing twice, and the fault may be ours."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.decision.decide import Rules, proven_event, source_of
from taskbridge.edge.errors import Malformed, NotDurable, Unverified
from taskbridge.edge.request import Received
from taskbridge.edge.server.admission import RejectionLog, site_of
from taskbridge.edge.verification.replays import ALTERED, CROSS_ACTION, refuse_replay
from taskbridge.edge.verification.signature import bearer_digest, bearer_fault
from taskbridge.runtime.rates import Bucket, PerSource, consume_all
from taskbridge.schemas.events import QuarantinedCallback
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client import Counter

    from taskbridge.edge.errors import Rejection
    from taskbridge.edge.publisher import KafkaPublisher
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.edge.verification.credentials import Credentials
    from taskbridge.edge.verification.replays import Window
    from taskbridge.schemas.events import TaskEvent

MASKED = "***"
_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization")

STAY_REJECTED = frozenset({CROSS_ACTION, ALTERED, "no-bearer", "wrong-bearer"})
"""No later change makes these valid: the first two are copies, the others had no valid bearer token."""

HEADS = frozenset({"too-large", "slow-body", "overloaded"})
"""Of these only the beginning is stored."""

MAX_PER_MINUTE = 600
"""Rejected callbacks of one sender that are stored."""
_MINUTE_S, _DAY_S = 60, 24 * 60 * 60
_SOURCE_SHARE = 4
"""One sender gets a quarter of the bytes: three more can fail at the same time."""
_ALL_SOURCES = 10
"""All senders together get ten times the requests of one."""
_RECORD_OVERHEAD_BYTES = 64 << 10
_MAX_UNPACKED_BYTES = (MAX_MESSAGE_BYTES - (1 << 20)) // 2
"""In a replay: the highest limit that the edge can be set to."""
_SLACK_S = 2.0

_log = structlog.stdlib.get_logger(__name__)


def is_plausible(received: Received) -> bool:
    """Whether the request may have been a callback."""
    return bool(received.body or received.query) or received.headers.get("content-length", "0") != "0"


def quarantined(received: Received, rejection: Rejection, *, bearer_tokens: Sequence[str]) -> QuarantinedCallback:
    """The entry for a rejected request: byte for byte, with the secrets in its headers masked.

    Yida's bearer token cannot be checked again later, so the masked header notes a wrong one. Another system may send
    a bearer token instead of a signature: its digest is noted, so that it can be checked again.
    """
    headers = {name: MASKED if name in _SECRET_HEADERS else value for name, value in received.headers.items()}
    authorization = received.headers.get("authorization")
    if source_of(received.path) is None:
        left = bearer_fault(authorization, bearer_tokens)
    else:
        left = bearer_digest(authorization)
    if left is not None:
        headers["authorization"] = f"{MASKED} {left}"
    return QuarantinedCallback(
        quarantine_id=str(uuid.uuid4()),
        received_at=received.received_at,
        action=received.wire_action,
        reason=rejection.reason,
        app_type=rejection.app_type,
        remote_address=received.remote_address,
        method=received.method,
        path=received.path,
        query=received.query.decode("latin-1"),
        headers=headers,
        body=received.body,
    )


def reconsider(
    entry: QuarantinedCallback, *, credentials: Credentials, delete_extra_keys: Iterable[str], window: Window
) -> TaskEvent:
    """The event of the entry by these credentials, with its original time of receipt.

    Raises Rejection if it is still not a callback of a known app.
    """
    left = entry.headers.get("authorization", "").partition(" ")[2]
    fault, digest = (left, None) if source_of(entry.path) is None else ("", left)
    if fault or entry.reason in STAY_REJECTED:
        raise Unverified(fault or entry.reason)
    if entry.reason in HEADS:
        raise Malformed(entry.reason, "Only the first bytes of the body were received.")
    received = Received(
        wire_action=entry.action,
        received_at=entry.received_at,
        remote_address=entry.remote_address,
        method=entry.method,
        path=entry.path,
        query=entry.query.encode("latin-1"),
        headers=entry.headers,
        body=entry.body,
        bearer_sha256=digest,
    )
    rules = Rules(delete_extra_keys=delete_extra_keys, max_body_bytes=_MAX_UNPACKED_BYTES)
    event, _ = proven_event(received, credentials, rules)
    refuse_replay(event, window)
    return event


class Quarantine:
    """Stores what the path of a callback rejects.

    Requests per minute and bytes per day are limited, per sender and for all together. Verified callbacks have limits
    of their own, so that a flood of others cannot displace them.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        publisher: KafkaPublisher,
        counted: Counter,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._counted = counted
        self._clock = clock
        self._bearer_tokens = [token.get_secret_value() for token in settings.bearer_tokens]
        self._timeout_s = settings.kafka_timeout_ms / 1000 + _SLACK_S
        self._bytes = settings.quarantine_max_bytes_per_day
        self._all = {proven: self._buckets(MAX_PER_MINUTE * _ALL_SOURCES, self._bytes) for proven in (True, False)}
        self._sources = PerSource(lambda: self._buckets(MAX_PER_MINUTE, self._bytes / _SOURCE_SHARE))
        self._failures = RejectionLog(clock=clock)

    async def store(self, received: Received, rejection: Rejection) -> str | None:
        """Store the request if it is plausible and within the limits; returns the entry's id, else None.

        It never raises and takes no longer than an accepted callback: the response must not depend on it.
        """
        if not is_plausible(received):
            return None
        stored = None
        try:
            entry = quarantined(received, rejection, bearer_tokens=self._bearer_tokens)
            outcome = "suppressed"
            if self._admits(entry, proven=rejection.proven):
                async with asyncio.timeout(self._timeout_s):
                    await self._publisher.quarantine(entry)
                outcome, stored = "kept", entry.quarantine_id
        except Exception as error:  # noqa: BLE001 - a failure here must not change the response
            outcome = "failed"
            self._report(error, received)
        self._counted.labels(rejection.reason, outcome).inc()
        return stored

    def _admits(self, entry: QuarantinedCallback, *, proven: bool) -> bool:
        size = size_of(entry)
        if size > MAX_MESSAGE_BYTES - _RECORD_OVERHEAD_BYTES:
            return False
        buckets = (*self._sources.of((site_of(entry.remote_address), proven)), *self._all[proven])
        amounts = zip(buckets, (1, size) * 2, strict=True)
        return consume_all(list(amounts), now=self._clock())

    def _buckets(self, requests: float, size: float) -> tuple[Bucket, Bucket]:
        now = self._clock()
        return Bucket(requests, full_after_s=_MINUTE_S, now=now), Bucket(size, full_after_s=_DAY_S, now=now)

    def _report(self, error: Exception, received: Received) -> None:
        left_out = self._failures.admit(type(error).__name__, received.remote_address)
        if left_out is not None:
            foreseen = isinstance(error, (NotDurable, TimeoutError))
            problem = str(error) or "timed out"
            _log.error("quarantine_failed", problem=problem, left_out=left_out, exc_info=None if foreseen else error)


def size_of(entry: QuarantinedCallback) -> int:
    """The approximate size of the entry's record in bytes."""
    texts = (entry.query, entry.path, *entry.headers, *entry.headers.values())
    return len(entry.body) + sum(len(text.encode()) for text in texts)
