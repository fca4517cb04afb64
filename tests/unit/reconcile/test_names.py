"""Names come from DingTalk for those that states name. Imports win, deleted people stay deleted, passes come first."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from support.reconcile import APP_TYPE, CORP_ID, FORM, FakeApi, fake_api
from taskbridge.dingtalk.apps import Organisation
from taskbridge.dingtalk.organisation import (
    PEOPLE_PER_CALL,
    BatchGetUser,
    Component,
    OrganisationApi,
    User,
)
from taskbridge.reconcile.budget import Allowance
from taskbridge.reconcile.name_sync import NameSync, NameTopic
from taskbridge.reconcile.names import FORM as FORMS_KIND
from taskbridge.reconcile.names import PERSON
from taskbridge.reconcile.states import States
from taskbridge.schemas.cloudevents import CONTENT_TYPE, FROM_DINGTALK
from taskbridge.schemas.codec import form_codec, person_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Form, FormField, Person, PersonRecord, TaskState, form_key, notification_key
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import FORMS, PEOPLE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping, Sequence

DAY_S = 86_400
REGISTRY = FakeRegistry()
PEOPLE_CODEC, FORMS_CODEC = person_codec(REGISTRY), form_codec(REGISTRY)
WANG, LABELS = User("u-wang", "王芳", "A1"), {"text_1": "金额"}


@dataclass
class Message:
    at: int
    its_key: bytes
    its_value: bytes | None
    its_headers: list[tuple[str, bytes]]

    def key(self) -> bytes:
        return self.its_key

    def value(self) -> bytes | None:
        return self.its_value

    def headers(self) -> list[tuple[str, bytes]]:
        return self.its_headers


@dataclass
class FakeTopics:
    """Both topics, with one partition each: what a reader reads, and what the outbox writes."""

    logs: dict[str, list[Message]] = field(default_factory=lambda: {PEOPLE.name: [], FORMS.name: []})
    ends: Counter[str] = field(default_factory=Counter[str])

    def append(self, topic: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        self.logs[topic].append(Message(self.ends[topic], key, value, [*headers]))
        self.ends[topic] += 1

    async def write(self, topic: str, values: Mapping[bytes, bytes], *, headers: Sequence[tuple[str, bytes]]) -> None:
        for key, value in values.items():
            self.append(topic, key, value, headers)

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        return {0: (0, self.ends[topic])}

    def read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int], **_: Any
    ) -> Generator[list[Message]]:
        yield [each for each in self.logs[topic] if starts[0] <= each.at < ends[0]]

    def compact(self, topic: str) -> None:
        """Drop what later records replace, and tombstones."""
        latest = {each.its_key: each for each in self.logs[topic]}
        self.logs[topic] = [each for each in latest.values() if each.its_value is not None]


@dataclass
class Named:
    api: FakeApi
    database: sqlite3.Connection
    topics: FakeTopics = field(default_factory=FakeTopics)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.states = States(self.database)
        made: Any = NameTopic
        people, forms = (
            made(kind, self.topics, REGISTRY, self.states.names, self.topics) for kind in (PERSON, FORMS_KIND)
        )
        self.sync = NameSync(self.states.names, people, forms, self.api.budget, self.api.clock)

    def see(self, *people: str, form: str | None = None, instance_id: str = "I-1") -> None:
        """A state that moves now."""
        originator = Person(people[0]) if people else None
        now = self.api.clock.now_ms()
        self.states.store(
            TaskState(instance_id, CORP_ID, APP_TYPE, now, now, originator=originator, assignee_ids=people[1:],
                      form_uuid=form, process_name="采购")
        )  # fmt: skip

    async def run(self) -> int:
        app = self.api.client.app
        return await self.sync.run([OrganisationApi(self.api.calls, Organisation(app.corp, app.user_id))], [app])

    def give(self, *people: User, labels: Mapping[str, str] | None = None) -> None:
        organisation = self.api.dingtalk.organisation
        organisation.people.update({each.userid: each for each in people})
        if labels is not None:
            organisation.labels[FORM] = {**labels}

    def name(self, user_id: str) -> str | None:
        """What a follower of the topic shows."""
        key, found = notification_key(CORP_ID, user_id), None
        for each in self.topics.logs[PEOPLE.name]:
            if each.its_key == key:
                found = None if each.its_value is None else PEOPLE_CODEC.decode(each.its_value).name
        return found

    def import_(self, record: PersonRecord | None, user_id: str) -> None:
        value = None if record is None else PEOPLE_CODEC.encode(record)
        self.topics.append(PEOPLE.name, notification_key(CORP_ID, user_id), value)

    @property
    def calls(self) -> int:
        return self.api.dingtalk.calls[BatchGetUser.path]


@asynccontextmanager
async def named(*, per_day: int = 1000) -> AsyncGenerator[Named]:
    allowance = Allowance(per_second=10, per_day=per_day, per_month=100_000)
    database = sqlite3.connect(":memory:", isolation_level=None)
    async with fake_api(database=database, allowance=allowance) as api:
        yield Named(api, database)


async def test_people_and_forms_of_states_get_their_names_once() -> None:
    async with named() as found:
        found.give(WANG, User("u-li", "李雷"), User("u-unseen", "张红"), labels=LABELS)
        found.see("u-wang", "u-li", form=FORM)
        assert await found.run() == 3
        [person, _] = found.topics.logs[PEOPLE.name]
        assert person.headers() == [CONTENT_TYPE, FROM_DINGTALK]
        records = [PEOPLE_CODEC.decode(each.its_value or b"") for each in found.topics.logs[PEOPLE.name]]
        records.sort(key=lambda each: each.user_id)
        assert records == [PersonRecord("u-li", "李雷"), PersonRecord("u-wang", "王芳", None, "A1")]
        [form] = found.topics.logs[FORMS.name]
        assert form.key() == form_key(CORP_ID, FORM)
        assert FORMS_CODEC.decode(form.its_value or b"") == Form(FORM, "采购", LABELS)
        calls = found.api.budget.used(CORP_ID).day
        assert calls == 2, "one for the people, one for the form"
        for _ in range(3):
            assert await found.run() == 0
        assert found.api.budget.used(CORP_ID).day == calls


async def test_the_fields_of_a_form_name_their_kinds_and_the_tables_around_them() -> None:
    """Layout between a field and its table is skipped, and a label in several languages is one of them."""
    async with named() as found:
        found.api.dingtalk.organisation.components[FORM] = [
            Component("formContainer_1", None, "FormContainer"),
            Component("amount", '{"en_US":"Amount","zh_CN":"金额","type":"i18n"}', "NumberField", "formContainer_1"),
            Component("tableField_1", "{broken", "TableField", "formContainer_1"),
            Component("column_1", "", "Column", "tableField_1"),
            Component("textField_1", '{"en_US":""}', "TextField", "column_1"),
            Component("loop_1", None, "Column", "loop_2"),
            Component("loop_2", None, "Column", "loop_1"),
            Component("dateField_1", None, "DateField", "loop_1"),
            Component(component_name="FooterYida"),
        ]
        found.see(form=FORM)
        assert await found.run() == 1
        [form] = found.topics.logs[FORMS.name]
        assert FORMS_CODEC.decode(form.its_value or b"") == Form(
            FORM,
            "采购",
            {"amount": "金额", "tableField_1": "{broken"},
            (
                FormField("amount", "NumberField"),
                FormField("tableField_1", "TableField"),
                FormField("textField_1", "TextField", "tableField_1"),
                FormField("dateField_1", "DateField"),
            ),
        )


async def test_a_changed_name_is_read_again_after_a_day_if_it_occurs_again() -> None:
    async with named() as found:
        found.give(WANG, labels=LABELS)
        found.see("u-wang", form=FORM)
        await found.run()
        found.give(User("u-wang", "王芳华"), labels={"text_1": "总金额"})
        found.api.clock.pass_s(DAY_S)
        assert await found.run() == 0, "nothing happened since"
        found.restart()
        found.see("u-wang", form=FORM, instance_id="I-2")
        assert await found.run() == 2
        assert found.name("u-wang") == "王芳华"
        assert FORMS_CODEC.decode(found.topics.logs[FORMS.name][-1].its_value or b"").labels == {"text_1": "总金额"}
        found.see("u-wang", form=FORM, instance_id="I-3")
        assert await found.run() == 0, "it was read less than a day ago"


@pytest.mark.parametrize("before", [True, False])
async def test_an_import_wins_before_and_after_the_first_reading(before: bool) -> None:  # noqa: FBT001
    async with named() as found:
        found.give(WANG)
        found.see("u-wang")
        if not before:
            await found.run()
        found.import_(PersonRecord("u-wang", "Wang Fang"), "u-wang")
        calls = found.calls
        found.api.clock.pass_s(DAY_S)
        found.see("u-wang", instance_id="I-2")
        assert await found.run() == 0
        assert (found.name("u-wang"), found.calls - calls) == ("Wang Fang", 0)


async def test_an_import_during_the_call_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    async with named() as found:
        found.give(WANG)
        found.see("u-wang")
        asked = OrganisationApi.people

        async def people(api: OrganisationApi, ids: Sequence[str]) -> list[User]:
            found.import_(PersonRecord("u-wang", "Wang Fang"), "u-wang")
            return await asked(api, ids)

        monkeypatch.setattr(OrganisationApi, "people", people)
        assert await found.run() == 0
        assert found.name("u-wang") == "Wang Fang"


@pytest.mark.parametrize("was_read", [True, False])
@pytest.mark.parametrize("compacted", [True, False])
async def test_a_deleted_person_does_not_come_back(was_read: bool, compacted: bool) -> None:  # noqa: FBT001
    """Also if the tombstone is compacted away before it is read, as far as there was a record."""
    async with named() as found:
        found.give(WANG, User("u-li", "李雷"))
        found.see("u-li")
        if was_read:
            found.see("u-wang", "u-li")
        await found.run()
        found.import_(None, "u-wang")
        if compacted and was_read:
            found.topics.compact(PEOPLE.name)
            found.restart()
        else:
            await found.run()
            found.topics.compact(PEOPLE.name)
        for _ in range(2):
            found.restart()
            found.api.clock.pass_s(2 * DAY_S)
            found.see("u-wang", "u-li")
            await found.run()
            assert (found.name("u-wang"), found.name("u-li")) == (None, "李雷")


async def test_a_new_topic_deletes_nobody() -> None:
    async with named() as found:
        found.give(WANG)
        found.see("u-wang")
        await found.run()
        found.topics = FakeTopics()
        found.restart()
        found.api.clock.pass_s(DAY_S)
        found.see("u-wang")
        assert await found.run() == 1


async def test_half_of_the_calls_of_a_day_is_left_to_passes() -> None:
    async with named(per_day=6) as found:
        people = [User(f"u-{each}", f"N{each}") for each in range(500)]
        found.give(*people)
        found.see(*(each.userid for each in people))
        await found.run()
        assert (found.calls, found.api.budget.left(CORP_ID)) == (3, 3)
        found.api.clock.pass_s(DAY_S)
        await found.run()
        assert found.calls == 6, "the others the next day"


async def test_people_whom_the_application_may_not_see_cost_one_call_a_day() -> None:
    async with named() as found:
        found.give(WANG)
        found.api.dingtalk.organisation.hidden.add("u-wang")
        found.see("u-wang", "u-unknown")
        for _ in range(3):
            assert await found.run() == 0
        assert found.calls == 1


async def test_a_missing_permission_is_said_and_not_called_for_a_day_again() -> None:
    async with named() as found:
        found.give(WANG, labels=LABELS)
        found.api.dingtalk.organisation.missing_permissions.add("qyapi_get_member")
        found.see("u-wang", form=FORM)
        with pytest.raises(OperatorError, match="qyapi_get_member"):
            await found.run()
        assert found.topics.ends == {FORMS.name: 1}, "labels need another permission"
        await found.run()
        assert found.calls == 1
        found.api.dingtalk.organisation.missing_permissions.clear()
        found.api.clock.pass_s(DAY_S)
        assert await found.run() == 1


@pytest.mark.parametrize("answer", [(400, "failure.form.broken"), (200, "not understood")])
async def test_a_refused_form_or_batch_of_people_stops_no_other(answer: tuple[int, str]) -> None:
    async with named() as found:
        people = [User(f"u-{each:02}", f"N{each}") for each in range(PEOPLE_PER_CALL + 1)]
        found.give(*people, labels=LABELS)
        found.see(form=FORM)
        found.api.clock.pass_s(1)
        found.see(form="FORM-BROKEN", instance_id="I-2")
        found.api.dingtalk.faults.answers_next.append(answer)
        with pytest.raises(OperatorError):
            await found.run()
        assert found.topics.ends == {FORMS.name: 1}
        found.see(*(each.userid for each in people))
        found.api.dingtalk.faults.answers_next.append((400, "failure.person.broken"))
        with pytest.raises(OperatorError):
            await found.run()
        assert found.topics.ends == {FORMS.name: 1, PEOPLE.name: 1}
        calls = found.calls
        assert (await found.run(), found.calls) == (0, calls), "it is not called for a day again"


async def test_while_dingtalk_is_away_nothing_is_concluded() -> None:
    async with named() as found:
        found.give(WANG)
        found.see("u-wang")
        found.api.dingtalk.faults.is_down = True
        with pytest.raises(OperatorError):
            await found.run()
        found.api.dingtalk.faults.is_down = False
        assert await found.run() == 1
