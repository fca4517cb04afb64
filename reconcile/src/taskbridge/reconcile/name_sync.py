"""Reads names of people and labels of forms from DingTalk, for the ids in states, and writes them to their topics.

A record that somebody else wrote wins and is not replaced. A deleted person stays deleted.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.reconcile.names import DELETED, FORM, IMPORTED, MISSING, OURS, PERSON
from taskbridge.runtime.dingtalk.calls import Absent, Later, Refused, Unexpected
from taskbridge.runtime.dingtalk.clock import DAY_MS
from taskbridge.runtime.dingtalk.organisation import PEOPLE_PER_CALL
from taskbridge.schemas.cloudevents import CONTENT_TYPE, FROM_DINGTALK, headers_of
from taskbridge.schemas.codec import Undecodable, form_codec, person_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Form, PersonRecord, form_key, notification_key
from taskbridge.schemas.topics import FORMS, PEOPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.reconcile.budget import Budget
    from taskbridge.reconcile.kafka import KafkaOutbox
    from taskbridge.reconcile.names import Names
    from taskbridge.runtime.dingtalk.apps import App
    from taskbridge.runtime.dingtalk.clock import Clock
    from taskbridge.runtime.dingtalk.organisation import OrganisationApi
    from taskbridge.runtime.partition_reader import PartitionReader
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.registry import Registry
    from taskbridge.schemas.topics import Topic

_REFUSED_MS = DAY_MS
"""How long a kind of call is not repeated after DingTalk refused it: a permission is missing, for example."""
_STALLED_S = 30.0

_Key = tuple[str, str]
"""Corp and id."""
_TOPICS: Mapping[str, tuple[Topic, Callable[[Registry], Codec[Any]], Callable[[str, str], bytes]]] = {
    PERSON: (PEOPLE, person_codec, notification_key),
    FORM: (FORMS, form_codec, form_key),
}

_log = structlog.stdlib.get_logger(__name__)


class NameTopic:
    """The topic of people or of forms: what is on it goes into ``Names``. The first ``catch_up`` reads all of it."""

    def __init__(
        self, kind: str, reader: PartitionReader, registry: Registry, names: Names, outbox: KafkaOutbox
    ) -> None:
        self.kind = kind
        self._topic, codec, self._key_of = _TOPICS[kind]
        self._codec: Codec[Any] = codec(registry)
        self._names, self._outbox, self._reader = names, outbox, reader
        self._positions: dict[int, int] | None = None
        self._ours: dict[_Key, PersonRecord | Form] = {}

    async def catch_up(self) -> None:
        """Read what was written since the last call.

        Raises:
            ConfigurationError: The topic does not exist.
            OperatorError: Kafka or the registry does not answer, or the topic was recreated.
        """
        bounds = await asyncio.to_thread(self._reader.bounds, self._topic.name)
        ends = {each: end for each, (_, end) in bounds.items()}
        before, self._positions = self._positions, None
        if before is None or before.keys() != ends.keys() or any(before[each] > end for each, end in ends.items()):
            before = None
            self._ours.clear()
        starts = before or {each: first for each, (first, _) in bounds.items()}
        # Of a new topic nothing can be concluded. In another one, a record that was there was deleted.
        gone = self._names.with_records(self.kind) if before is None and any(ends.values()) else set[_Key]()
        with closing(self._reader.read(self._topic.name, starts, ends, quiet_s=_STALLED_S)) as batches:
            for batch in batches:
                found = dict(map(self._read, batch))
                self._names.set_records(self.kind, ((*key, record) for key, record in found.items()))
                gone -= found.keys()
                await asyncio.sleep(0)
        # Tombstones that were compacted away while nobody read the topic.
        self._names.set_records(self.kind, ((*key, self._deleted) for key in gone))
        self._positions = ends

    async def publish(self, corp_id: str, records: Mapping[str, PersonRecord | Form]) -> int:
        """Write those that differ from our last ones and that nobody else wrote, and return their number.

        Raises:
            OperatorError: Kafka or the registry does not answer, or did not accept all of them.
        """
        # Somebody may have imported or deleted some while DingTalk was called.
        await self.catch_up()
        found = {
            each: record
            for each, record in records.items()
            if self._names.record_of(self.kind, corp_id, each) in (MISSING, OURS)
            and self._ours.get((corp_id, each)) != record
        }
        values = {self._key_of(corp_id, each): self._codec.encode(record) for each, record in found.items()}
        await self._outbox.write(self._topic.name, values, headers=[CONTENT_TYPE, FROM_DINGTALK])
        # Now, because its tombstone may be compacted away before anything is read again.
        self._names.set_records(self.kind, ((corp_id, each, OURS) for each in found))
        return len(found)

    @property
    def _deleted(self) -> str:
        # Labels of a form are no personal data: when an import is deleted, those of DingTalk follow.
        return DELETED if self.kind == PERSON else MISSING

    def _read(self, message: Message) -> tuple[_Key, str]:
        corp_id, _, its_id = (message.key() or b"").decode("utf-8", "replace").partition("/")
        key, value = (corp_id, its_id), message.value()
        self._ours.pop(key, None)
        if value is None:
            return key, self._deleted
        if FROM_DINGTALK not in headers_of(message):
            return key, IMPORTED
        try:
            self._ours[key] = self._codec.decode(value)
        except Undecodable as error:
            _log.error("name_not_readable", topic=self._topic.name, problem=str(error))
        return key, OURS


class NameSync:
    """Reads names from DingTalk while more than half of the day's calls are left, because passes come first."""

    def __init__(self, names: Names, people: NameTopic, forms: NameTopic, budget: Budget, clock: Clock) -> None:
        self._names, self._people, self._forms = names, people, forms
        self._budget, self._clock = budget, clock
        self._refused_ms: dict[tuple[str, str], int] = {}

    async def run(self, apis: Sequence[OrganisationApi], apps: Sequence[App]) -> int:
        """Publish the names that are due, and return how many changed.

        Raises:
            OperatorError: Kafka or the registry does not answer, or DingTalk refuses a call.
        """
        for each in (self._people, self._forms):
            await each.catch_up()
        changed, problems = 0, list[str]()
        for api in apis:
            for kind, work in ((FORM, self._labels), (PERSON, self._people_of)):
                key = api.organisation.corp_id, kind
                if self._clock.now_ms() < self._refused_ms.get(key, 0):
                    continue
                try:
                    changed += await work(api, apps)
                except Later as error:
                    problems.append(str(error))
                    break
                except (Refused, Unexpected) as error:
                    self._refused_ms[key] = self._clock.now_ms() + _REFUSED_MS
                    problems.append(str(error))
        if problems:
            raise OperatorError("; ".join(problems))
        return changed

    async def _people_of(self, api: OrganisationApi, _: Sequence[App]) -> int:
        corp_id, changed = api.organisation.corp_id, 0
        while self._budget.may_spend(corp_id):
            now_ms = self._clock.now_ms()
            ids = [each.id for each in self._names.due(PERSON, corp_id, now_ms=now_ms, most=PEOPLE_PER_CALL)]
            if not ids:
                break
            users = await api.people(ids)
            records = {
                each.userid: PersonRecord(each.userid, each.name, employee_number=each.job_number or None)
                for each in users
                if each.name and each.userid in ids
            }
            changed += await self._people.publish(corp_id, records)
            self._names.was_read(PERSON, corp_id, ids, now_ms=now_ms)
        return changed

    async def _labels(self, api: OrganisationApi, apps: Sequence[App]) -> int:
        corp_id, changed = api.organisation.corp_id, 0
        by_type = {each.app_type: each for each in apps if each.corp_id == corp_id}
        for form in self._names.due(FORM, corp_id, now_ms=self._clock.now_ms(), most=1000):
            app = by_type.get(form.app_type or "")
            if app is None:
                continue
            if not self._budget.may_spend(corp_id):
                break
            now_ms = self._clock.now_ms()
            try:
                labels = await api.labels(app, form.id)
            except Absent:
                labels = {}
            if labels:
                changed += await self._forms.publish(corp_id, {form.id: Form(form.id, form.title, labels)})
            self._names.was_read(FORM, corp_id, [form.id], now_ms=now_ms)
        return changed
