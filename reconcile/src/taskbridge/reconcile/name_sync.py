"""Reads names of people and labels of forms from DingTalk, for the ids in states, and writes them to their topics.

A record that somebody else wrote wins and is not replaced. A deleted person stays deleted.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.calls import Absent, Later, NotOffered, Refused, Unexpected
from taskbridge.dingtalk.organisation import PEOPLE_PER_CALL
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.names import DELETED, FORM, IMPORTED, MISSING, OURS, PERSON
from taskbridge.schemas.cloudevents import CONTENT_TYPE, FROM_DINGTALK, headers_of
from taskbridge.schemas.codec import Undecodable, form_codec, person_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Form, PersonRecord, form_key, notification_key
from taskbridge.schemas.topics import FORMS, PEOPLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.dingtalk.apps import App
    from taskbridge.dingtalk.organisation import OrganisationApi
    from taskbridge.reconcile.budget import Budget
    from taskbridge.reconcile.kafka import KafkaOutbox
    from taskbridge.reconcile.names import Due, Names
    from taskbridge.runtime.clock import Clock
    from taskbridge.runtime.partition_reader import PartitionReader
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.registry import Registry
    from taskbridge.schemas.topics import Topic

_REFUSED_MS = DAY_MS
"""How long a kind of call is not repeated while a permission is missing."""
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


class _Batch(NamedTuple):
    """Ids that one call reads."""

    ids: Sequence[str]
    read: Callable[[], Awaitable[Mapping[str, PersonRecord | Form]]]


class NameSync:
    """Reads names from DingTalk while more than half of the day's calls are left, because passes come first."""

    def __init__(self, names: Names, people: NameTopic, forms: NameTopic, budget: Budget, clock: Clock) -> None:
        self._names, self._people, self._forms = names, people, forms
        self._budget, self._clock = budget, clock
        self._refused_ms: dict[tuple[str, str], int] = {}

    async def catch_up(self) -> None:
        """Read the topics alone, as ``NameTopic.catch_up``: no call is made."""
        for each in (self._people, self._forms):
            await each.catch_up()

    async def run(self, apis: Sequence[OrganisationApi], apps: Sequence[App]) -> int:
        """Publish the names that are due, and return how many changed.

        Raises:
            OperatorError: Kafka or the registry does not answer, or DingTalk refuses a call.
        """
        await self.catch_up()
        changed, problems = 0, list[str]()
        for api in apis:
            for topic, batches in ((self._forms, self._forms_due(api, apps)), (self._people, self._people_due(api))):
                key = api.organisation.corp_id, topic.kind
                if self._clock.now_ms() < self._refused_ms.get(key, 0):
                    continue
                try:
                    changed += await self._publish(topic, api, batches, problems)
                except Later as error:
                    problems.append(str(error))
                    break
        if problems:
            raise OperatorError("; ".join(problems))
        return changed

    async def _publish(
        self, topic: NameTopic, api: OrganisationApi, batches: Iterator[_Batch], problems: list[str]
    ) -> int:
        """Read these batches and publish the names. One that is refused stops no other, unless a permission lacks."""
        corp_id, changed = api.organisation.corp_id, 0
        for batch in batches:
            if not self._budget.may_spend(corp_id):
                break
            now_ms = self._clock.now_ms()
            try:
                changed += await topic.publish(corp_id, await batch.read())
            except Absent:
                pass
            except (Refused, Unexpected) as error:
                problems.append(str(error))
                if isinstance(error, NotOffered) or wire.CODE_PERMISSION in str(error):
                    self._refused_ms[corp_id, topic.kind] = now_ms + _REFUSED_MS
                    break
            self._names.was_read(topic.kind, corp_id, batch.ids, now_ms=now_ms)
        return changed

    def _people_due(self, api: OrganisationApi) -> Iterator[_Batch]:
        due = [each.id for each in self._names.due(PERSON, api.organisation.corp_id, now_ms=self._clock.now_ms())]
        for at in range(0, len(due), PEOPLE_PER_CALL):
            ids = due[at : at + PEOPLE_PER_CALL]
            yield _Batch(ids, partial(self._read_people, api, ids))

    async def _read_people(self, api: OrganisationApi, ids: Sequence[str]) -> dict[str, PersonRecord]:
        return {
            each.userid: PersonRecord(each.userid, each.name, employee_number=each.job_number or None)
            for each in await api.people(ids)
            if each.name and each.userid in ids
        }

    def _forms_due(self, api: OrganisationApi, apps: Sequence[App]) -> Iterator[_Batch]:
        corp_id = api.organisation.corp_id
        by_type = {each.app_type: each for each in apps if each.corp_id == corp_id}
        for form in self._names.due(FORM, corp_id, now_ms=self._clock.now_ms()):
            if (app := by_type.get(form.app_type or "")) is not None:
                yield _Batch([form.id], partial(self._read_form, api, app, form))

    async def _read_form(self, api: OrganisationApi, app: App, form: Due) -> dict[str, Form]:
        found = await api.form(app, form.id, form.title)
        return {form.id: found} if found.labels or found.fields else {}
