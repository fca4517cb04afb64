"""Keeps rejected callbacks as received, within bounds: Yida sends nothing twice, and the fault may be ours."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.decision import Rules, proven_event, source_of
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
    from taskbridge.edge.publisher import Publisher
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.edge.verification.credentials import Credentials
    from taskbridge.edge.verification.replays import Window
    from taskbridge.schemas.events import TaskEvent

MASKED = "***"
_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization")

STAY_REJECTED = frozenset({CROSS_ACTION, ALTERED, "no-bearer", "wrong-bearer"})
"""No change of ours makes these right: the first two are copies, and the others lacked what no copy of ours holds."""

HEADS = frozenset({"too-large", "slow-body", "overloaded"})
"""Of these, only how they began is kept."""

_MINUTE_S, _DAY_S = 60, 24 * 60 * 60
_SOURCE_SHARE = 4
"""One sender gets a quarter of the bytes, so that three more could fail at the same time."""
_ALL_SOURCES = 10
"""All senders together get ten times one's requests."""
_RECORD_OVERHEAD_BYTES = 64 << 10
_MAX_UNPACKED_BYTES = (MAX_MESSAGE_BYTES - (1 << 20)) // 2
"""In a replay: what the edge's own bound can be raised to."""
_SLACK_S = 2.0

_log = structlog.stdlib.get_logger(__name__)


def is_plausible(received: Received) -> bool:
    """Whether it may have been a callback."""
    return bool(received.body or received.query) or received.headers.get("content-length", "0") != "0"


def quarantined(received: Received, rejection: Rejection, *, bearer_tokens: Sequence[str]) -> QuarantinedCallback:
    """The entry for a rejected request: byte for byte, with the secrets in its headers masked.

    Whether Yida's bearer token was right cannot be asked again later, so a fault is noted in the masked header. Other
    systems may have one instead of a signature: its digest is noted, for it is to be judged again.
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
    """The event that the entry proves now, received when it was received.

    Raises:
        Rejection: it is still no callback of an app that is known.
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
    """Where the path of a callback puts what it rejects.

    Requests a minute and bytes a day are bounded, for each sender and for all together. What is proven to come of a
    known app has bounds of its own, so that no stranger's flood keeps it out. Workers get equal shares.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        publisher: Publisher,
        counted: Counter,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._counted = counted
        self._clock = clock
        self._bearer_tokens = [token.get_secret_value() for token in settings.bearer_tokens]
        self._timeout_s = settings.kafka_timeout_ms / 1000 + _SLACK_S
        self._requests = max(1, settings.quarantine_max_per_minute // settings.workers)
        self._bytes = settings.quarantine_max_bytes_per_day // settings.workers
        self._all = {proven: self._buckets(self._requests * _ALL_SOURCES, self._bytes) for proven in (True, False)}
        self._sources = PerSource(lambda: self._buckets(self._requests, self._bytes / _SOURCE_SHARE))
        self._failures = RejectionLog(clock=clock)

    async def keep(self, received: Received, rejection: Rejection) -> str | None:
        """Keep it where it is worth it and within bounds; returns the entry's id, or None where there is none.

        Never raises, and takes no longer than an accepted callback does: the answer must not depend on it.
        """
        if not is_plausible(received):
            return None
        kept = None
        try:
            entry = quarantined(received, rejection, bearer_tokens=self._bearer_tokens)
            outcome = "suppressed"
            if self._admits(entry, proven=rejection.proven):
                async with asyncio.timeout(self._timeout_s):
                    await self._publisher.quarantine(entry)
                outcome, kept = "kept", entry.quarantine_id
        except Exception as error:  # noqa: BLE001 - a refused request stays a refusal, whatever fails here
            outcome = "failed"
            self._report(error, received)
        self._counted.labels(rejection.reason, outcome).inc()
        return kept

    def _admits(self, entry: QuarantinedCallback, *, proven: bool) -> bool:
        size = size_of(entry)
        if size > MAX_MESSAGE_BYTES - _RECORD_OVERHEAD_BYTES:
            return False
        buckets = (*self._sources.of((site_of(entry.remote_address), proven)), *self._all[proven])
        wanted = zip(buckets, (1, size) * 2, strict=True)
        return consume_all(list(wanted), now=self._clock())

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
    """Bytes of the entry's record, give or take a few."""
    texts = (entry.query, entry.path, *entry.headers, *entry.headers.values())
    return len(entry.body) + sum(len(text.encode()) for text in texts)
