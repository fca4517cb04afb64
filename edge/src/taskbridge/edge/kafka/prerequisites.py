"""What the edge needs of Kafka and of the registry: permissions, topics and schema ids.

Each is requested by itself: a problem of the quarantine does not keep events from Kafka.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.errors import NotDurable
from taskbridge.runtime.kafka import Acl, admin_client
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.errors import TaskbridgeError
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from taskbridge.edge.kafka.client import KafkaClient
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.runtime.topic_admin import TopicReport
    from taskbridge.schemas.registry import Registry, SchemaRef
    from taskbridge.schemas.topics import Topic

_log = structlog.stdlib.get_logger(__name__)


EDGE = (
    Acl("Write", "topic", TASK_EVENTS.name, "stores accepted callbacks; without it they wait in the spool"),
    Acl("Write", "topic", CALLBACKS_QUARANTINE.name, "stores rejected callbacks; without it they wait in the spool"),
    Acl("DescribeConfigs", "topic", "taskbridge.", "reports changed topic settings", prefixed=True),
)


_OWN_TOPICS = (TASK_EVENTS, CALLBACKS_QUARANTINE)

_FIRST_RETRY_S = 0.25
_LAST_RETRY_S = 5.0
_LOOK_AGAIN_S = 60.0
"""At the topics: an operator who changes or repairs one need not restart the edge."""


class Prerequisites:
    """Tries until all of it is there, and reports what is missing."""

    def __init__(
        self,
        settings: EdgeSettings,
        extra: Mapping[str, str],
        kafka: KafkaClient,
        registry: Registry,
        *,
        schemas: Sequence[SchemaRef],
        partitions: int,
    ) -> None:
        self._bootstrap_servers = settings.kafka_bootstrap_servers
        self._extra = extra
        self._kafka = kafka
        self._registry = registry
        self._schemas = schemas
        self._partitions = partitions
        self._answered = True
        self._registry_problem: str | None = None
        self._ids_unsaved: str | None = None
        self._topic_problems: dict[str, str] = {}
        self._reports: dict[str, TopicReport] = {}
        self._looked_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._check_kafka_forever()), asyncio.create_task(self._fetch_schema_ids())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def health(self) -> dict[str, str]:
        """What events need of Kafka, what the quarantine needs, and what merely differs, each by itself."""
        differing = {name: each for name, each in self._reports.items() if each.drift}
        return {
            "kafka": self._topic_health(TASK_EVENTS),
            "quarantine": self._topic_health(CALLBACKS_QUARANTINE),
            "topics": "; ".join(f"{name}: {', '.join(each.drift)}" for name, each in differing.items()) or "ok",
            "registry": self._registry_health(),
        }

    def _topic_health(self, topic: Topic) -> str:
        if not self._kafka.answers:
            return "does not answer"
        failure = self._kafka.problem_of(topic.name)
        if not self._kafka.has(topic.name):
            return f"{topic.name} is not usable: {self._topic_problems.get(topic.name, 'not checked yet')}"
        return "ok" if failure is None else f"{topic.name} does not acknowledge records: {failure}"

    def _registry_health(self) -> str:
        if not all(self._kafka.can_frame(schema.key) for schema in self._schemas):
            return f"schema ids are not known yet: {self._registry_problem or 'not requested yet'}"
        if self._ids_unsaved is not None:
            return f"the schema ids are not on disk, so a start without the registry would fail: {self._ids_unsaved}"
        return "ok"

    async def _check_kafka_forever(self) -> None:
        while True:
            await _survive(self._check_kafka)
            await asyncio.sleep(self._kafka.next_check_s)

    async def _check_kafka(self) -> None:
        # Only if it answers, because the admin client would wait a quarter of a minute for a broker that is away.
        answers = await self._kafka.check()
        if answers != self._answered:
            self._answered = answers
            if not answers:
                problem = f"Kafka at {self._bootstrap_servers} does not answer; check EDGE_KAFKA_BOOTSTRAP_SERVERS"
                _log.warning("kafka_check_failed", problem=problem)
        if not answers:
            return
        unsure = [topic for topic in _OWN_TOPICS if not self._kafka.has(topic.name)]
        again = time.monotonic() - self._looked_at > _LOOK_AGAIN_S
        if not (again or any(topic.name not in self._topic_problems for topic in unsure)):
            return
        self._looked_at = time.monotonic()
        for topic in _OWN_TOPICS if again else unsure:
            await self._apply(topic)

    async def _apply(self, topic: Topic) -> None:
        def apply() -> Sequence[TopicReport]:
            admin = admin_client(self._bootstrap_servers, self._extra)
            return apply_topics(admin, [topic], partitions=self._partitions)

        self._topic_problems.pop(topic.name, None)
        try:
            reports = await asyncio.to_thread(apply)
        except TaskbridgeError as error:
            _log.error("topic_not_usable", topic=topic.name, problem=str(error))
            self._topic_problems[topic.name] = str(error)
            return
        for report in reports:
            self._note(report)

    def _note(self, report: TopicReport) -> None:
        if self._reports.get(report.name) != report:  # what is as before is not said every minute
            _log.info("topic_applied", topic=report.name, created=report.created, partitions=report.partitions)
            for line in report.drift:
                _log.warning("topic_differs", topic=report.name, difference=line)
            if report.unchecked is not None:
                _log.warning("topic_not_checked", topic=report.name, problem=report.unchecked)
        self._reports[report.name] = report
        self._kafka.open(report.name, partitions=report.partitions)

    async def _fetch_schema_ids(self) -> None:
        for step in (self._register, self._save_ids):
            retry_s = _FIRST_RETRY_S
            while not await _survive(step):
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)

    async def _register(self) -> None:
        self._registry_problem = None
        refused: TaskbridgeError | None = None
        for topic in _OWN_TOPICS:
            try:
                await asyncio.to_thread(self._registry.register, [topic])
            except TaskbridgeError as error:
                refused, self._registry_problem = error, str(error)
            self._kafka.load_ids(*self._schemas)
        if refused is not None:
            raise refused
        _log.info("schemas_registered")

    async def _save_ids(self) -> None:
        self._ids_unsaved = await asyncio.to_thread(self._registry.save)
        if self._ids_unsaved is not None:
            raise NotDurable(f"the schema ids could not be written to disk: {self._ids_unsaved}")


async def _survive(call: Callable[[], Awaitable[None]]) -> bool:
    """Whether it went well: the task must outlive any failure."""
    try:
        await call()
    except Exception as error:  # noqa: BLE001 - see above
        _log.warning("preparation_failed", problem=str(error), foreseen=isinstance(error, TaskbridgeError))
        return False
    return True
