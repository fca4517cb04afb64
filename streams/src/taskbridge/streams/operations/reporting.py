"""The operators' data: this worker's numbers, sampled all the time, and those of all workers, combined per request."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.partition_reader import Unreadable
from taskbridge.runtime.quarantined import quarantined_summary
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.codec import quarantined_callback_codec, task_notification_codec
from taskbridge.schemas.dead_letters import dead_letter_of
from taskbridge.schemas.events import Lifecycle
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS_DLQ
from taskbridge.streams.api.json_forms import state_json
from taskbridge.streams.api.refusals import NotNow
from taskbridge.streams.monitoring.progress import Snapshot
from taskbridge.streams.operations.asking import Asking
from taskbridge.streams.operations.edges import edge_of, totals_of
from taskbridge.streams.operations.history import SAMPLE_S, History
from taskbridge.streams.operations.last_errors import LastErrors
from taskbridge.streams.operations.missed import missed_of
from taskbridge.streams.operations.overview import overview
from taskbridge.streams.operations.parked import Parked, Reading, SetAside
from taskbridge.streams.operations.search import Search, dead_letter_summary
from taskbridge.streams.operations.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Message

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import QuarantinedCallback
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.monitoring.flow import Flow
    from taskbridge.streams.monitoring.progress import Progress
    from taskbridge.streams.offsets import Offsets
    from taskbridge.streams.operations.edges import Answers
    from taskbridge.streams.query.answers import ApiContext

log = structlog.get_logger(__name__)

_NOTHING: dict[str, Any] = {"total": 0, "reasons": {}, "latest": []}
SetAsideCounts = tuple[dict[str, Any], dict[str, Any]]
"""Quarantine and dead letters."""

_HISTORY_S = 15.0
"""Time limit for another worker to read an instance's events from their topic."""
_PARKED_S = 3.0
"""How long the overview waits for the topics; then it shows what is known already."""


class OperationsReporter:
    """Made before anything is connected; ``open`` brings the topics, and ``follow`` the worker's progress."""

    def __init__(
        self, context: ApiContext, *, own_url: str, edge_urls: str, streams: Callable[[], int], reconcile_url: str = ""
    ) -> None:
        """``edge_urls`` is comma-separated; ``streams`` counts the open event streams."""
        self._context = context
        self._owners = context.resolver.owners
        self._own_url = own_url.rstrip("/")
        self._edge_urls = [each.strip().rstrip("/") for each in edge_urls.split(",") if each.strip()]
        self._reconcile_url = reconcile_url.strip().rstrip("/")
        self._streams = streams
        self.errors = LastErrors()
        self._history = History()
        self._since = iso(time.time_ns() // 1_000_000)
        self._asking = Asking()
        self._flow: Flow | None = None
        self._progress: Progress | None = None
        self._ready: Callable[[], bool] = bool
        self._thread = ThreadPoolExecutor(1, "operations")
        self._searching = ThreadPoolExecutor(1, "search")
        self._readings: list[Reading] = []
        self._quarantine: Parked | None = None
        self._dead_letters: Parked | None = None
        self._search: Search | None = None
        self._looking: asyncio.Future[SetAsideCounts] | None = None
        self._set_aside: SetAsideCounts = (_NOTHING, _NOTHING)

    def open(self, *, consumer: Mapping[str, object], offsets: Offsets, registry: Registry, flow: Flow) -> None:
        """Kafka is connected."""
        self._flow = flow
        following, searching = Reading(consumer, offsets), Reading(consumer, offsets)
        self._readings = [following, searching]
        quarantined = quarantined_callback_codec(registry)
        self._quarantine = Parked(following, CALLBACKS_QUARANTINE, partial(_quarantined, quarantined))
        self._dead_letters = Parked(following, TASK_EVENTS_DLQ, _letter)
        notifications = task_notification_codec(registry)
        self._search = Search(searching, self._owners, quarantined=quarantined, notifications=notifications)

    def follow(self, progress: Progress, ready: Callable[[], bool]) -> None:
        """The worker is at work."""
        self._progress, self._ready = progress, ready

    async def keep(self) -> None:
        """Take a sample every ten seconds, until cancelled."""
        while True:
            now_s = time.time()
            await asyncio.sleep(SAMPLE_S - now_s % SAMPLE_S)
            edges = [edge_of(each) for each in await self._ask_edges()]
            self._history.add(now_s=time.time(), lag_records=sum(self._now.lag.values()), edges=totals_of(edges))

    def share(self) -> dict[str, Any]:
        """The data of this worker, for the worker that builds the overview."""
        now, tokens = self._now, self._context.resolver.access.tokens
        return {
            "ready": self._ready(),
            "problem": tokens and tokens.problem,
            "active": now.active,
            "standby": now.standby,
            "lag": _by_name(now.lag),
            "lag_seconds": _by_name(now.lag_seconds),
            "inbox_lag": _by_name(now.inbox_lag),
            "sse_connections": self._streams(),
            "since": self._since,
            "flow": {} if self._flow is None else self._flow.share(),
            "errors": self.errors.share(),
            "lag_samples": self._history.lag_share(),
        }

    async def overview(self, authorization: str | None) -> dict[str, Any]:
        """Everybody's, with whom could not be reached."""
        others = [url for url in self._owners.workers() if url != self._own_url]
        shares, edges, (quarantine, dead_letters), missed = await asyncio.gather(
            asyncio.gather(*(self._asking.worker(url, "/v1/ops/worker", authorization) for url in others)),
            self._ask_edges(),
            self._parked(),
            self._missed(),
        )
        return overview(
            {self._own_url: self.share(), **dict(zip(others, shares, strict=True))},
            now_s=time.time(),
            edges=[edge_of(each) for each in edges],
            samples=list(self._history.samples),
            quarantine=quarantine,
            dead_letters=dead_letters,
            missed=missed,
        )

    async def instance(self, instance_id: str, *, forwarded: bool, authorization: str | None) -> dict[str, Any]:
        """State and history from whose worker has it: ``{"state", "deleted", "history"}``.

        Raises:
            NotNow: its worker is unknown, or does not answer.
        """
        owner = self._owners.of_instance(instance_id)
        if not owner.here:
            path = "/v1/ops/instance?" + urlencode({"instance_id": instance_id})
            found = (
                None if forwarded else await self._asking.worker(owner.url, path, authorization, within_s=_HISTORY_S)
            )
            if found is None:
                raise NotNow("the worker that has this instance does not answer")
            return found
        readers = self._context.readers
        stored = readers.instances.look_up(owner.partition, instance_id)
        if stored is None:
            return {"state": None, "deleted": False, "history": None}
        instance, offsets = stored
        history = await readers.histories.of(owner.partition, instance.state, offsets)
        deleted = instance.state.lifecycle is Lifecycle.DELETED
        return {
            "state": state_json(instance, readers.names, readers.forms),
            "deleted": deleted,
            "history": history,
        }

    async def callbacks(self, instance_id: str, authorization: str | None) -> dict[str, Any]:
        """Whether callbacks of this instance were received, and what became of them.

        Raises:
            NotNow: this worker is starting, or Kafka or the instance's worker does not answer.
        """
        if self._search is None:
            raise NotNow("this worker is starting")
        known = await self.instance(instance_id, forwarded=False, authorization=authorization)
        try:
            findings = await asyncio.get_running_loop().run_in_executor(
                self._searching, self._search.find, instance_id, known["state"], known["history"]
            )
        except (KafkaException, TimeoutError, Unreadable) as error:
            log.warning("topics_not_searched", problem=str(error))
            raise NotNow("the topics cannot be searched at the moment") from error
        found = {"instance_id": instance_id, **known, **findings.shown()}
        return {"verdict": verdict(found), **found, "state": None if known["deleted"] else known["state"]}

    async def close(self) -> None:
        await self._asking.close()
        for each in self._readings:
            await asyncio.to_thread(each.close)
        for thread in (self._thread, self._searching):
            thread.shutdown(wait=False)

    @property
    def _now(self) -> Snapshot:
        return Snapshot() if self._progress is None else self._progress.now

    async def _ask_edges(self) -> list[Answers]:
        return await asyncio.gather(*map(self._asking.edge, self._edge_urls))

    async def _missed(self) -> dict[str, Any] | None:
        url = self._reconcile_url
        # It requires no token, so it gets none.
        return missed_of(url, await self._asking.worker(url, "/status", None)) if url else None

    async def _parked(self) -> SetAsideCounts:
        quarantine, dead_letters = self._quarantine, self._dead_letters
        if quarantine is None or dead_letters is None:
            return self._set_aside
        now_ms = time.time_ns() // 1_000_000

        def look() -> SetAsideCounts:
            return quarantine.overview(now_ms=now_ms), dead_letters.overview(now_ms=now_ms)

        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._thread, look))
        with suppress(TimeoutError):
            self._set_aside = await asyncio.wait_for(asyncio.shield(self._looking), _PARKED_S)
        return self._set_aside


def _by_name(values: Mapping[int, Any]) -> dict[str, Any]:
    """By texts, as JSON's names are: a merge need not know whether it came over the wire."""
    return {str(partition): value for partition, value in values.items()}


def _quarantined(codec: Codec[QuarantinedCallback], message: Message) -> SetAside:
    entry = codec.decode(message.value())
    return SetAside(entry.received_at, entry.reason, quarantined_summary(entry))


def _letter(message: Message) -> SetAside:
    letter = dead_letter_of(message)
    return SetAside(letter.at_ms, letter.reason or "unknown", dead_letter_summary(letter))
