"""The topics of events and of form data in memory, and reconcile's reader of form values against a fake DingTalk."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from support.reconcile import CORP_ID, FORM, FakeApi, fake_api
from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.apps import Organisation
from taskbridge.dingtalk.organisation import OrganisationApi
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.budget import Allowance
from taskbridge.reconcile.form_data import FormRules, FormSync, FormTopics
from taskbridge.reconcile.form_store import WORK, FormStore
from taskbridge.reconcile.repairer import RECONCILE
from taskbridge.reconcile.store import Cursor, CursorKey, Store, open_database
from taskbridge.schemas.codec import form_data_codec, task_event_codec, task_event_head_codec
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import FORM_DATA, TASK_EVENTS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    from taskbridge.dingtalk.apps import App
    from taskbridge.runtime.partition_reader import PartitionReader
    from taskbridge.schemas.events import FormData, TaskEvent

REGISTRY = FakeRegistry()
EVENTS, RECORDS = task_event_codec(REGISTRY), form_data_codec(REGISTRY)
HOUR_MS = 3_600_000
RULES = FormRules(wait_ms=10_000, scan_ms=DAY_MS, since_ms=30 * DAY_MS, check_ms=7 * DAY_MS, hash_key=b"k" * 16)
ENOUGH = Allowance(per_second=10, per_day=10_000, per_month=1_000_000)
ORDINARY = "FORM-ordinary"


@dataclass
class Message:
    its_key: bytes
    its_value: bytes | None

    def key(self) -> bytes:
        return self.its_key

    def value(self) -> bytes | None:
        return self.its_value


@dataclass
class FakeTopics:
    """One partition each. It is the reader, and the writer of form data."""

    logs: dict[str, list[Message]] = field(default_factory=lambda: {TASK_EVENTS.name: [], FORM_DATA.name: []})
    reached: dict[int, int] = field(default_factory=dict[int, int])

    async def write_forms(self, records: Sequence[FormData], tombstones: Sequence[str] = ()) -> None:
        for each in tombstones:
            self.logs[FORM_DATA.name].append(Message(each.encode(), None))
        for each in records:
            self.logs[FORM_DATA.name].append(Message(each.instance_id.encode(), RECORDS.encode(each)))

    def arrive(self, *events: TaskEvent) -> None:
        self.logs[TASK_EVENTS.name] += [Message(each.instance_id.encode(), EVENTS.encode(each)) for each in events]

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        return {0: (0, len(self.logs[topic]))}

    def read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int], **_: Any
    ) -> Generator[list[Message]]:
        self.reached = dict(starts)
        for at in range(starts[0], ends[0], 100):
            self.reached = {0: min(at + 100, ends[0])}
            yield self.logs[topic][at : self.reached[0]]

    def written(self, instance_id: str | None = None) -> list[FormData | None]:
        """The records, oldest first; None is a tombstone."""
        return [
            None if each.its_value is None else RECORDS.decode(each.its_value)
            for each in self.logs[FORM_DATA.name]
            if instance_id in (None, each.its_key.decode())
        ]

    def newest(self) -> dict[str, FormData]:
        """As a compacted topic has them."""
        latest = {each.its_key.decode(): each.its_value for each in self.logs[FORM_DATA.name]}
        return {key: RECORDS.decode(value) for key, value in latest.items() if value is not None}


@dataclass
class Forms:
    api: FakeApi
    app: App
    folder: Path
    rules: FormRules = RULES
    topics: FakeTopics = field(default_factory=FakeTopics)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self, folder: Path | None = None, *, database: sqlite3.Connection | None = None) -> None:
        """As after a kill; with a folder, on another machine."""
        self.store = Store(database or open_database(folder or self.folder))
        reader = cast("PartitionReader", self.topics)
        topics = FormTopics(reader, task_event_head_codec(REGISTRY, with_form=True), RECORDS, self.topics)
        self.left_out = Counter[str]()
        self.sync = FormSync(
            self.store,
            topics,
            self.api.budget,
            self.api.clock,
            self.rules,
            on_left_out=lambda app, count: self.left_out.update({app: count}),
        )

    @property
    def forms(self) -> FormStore:
        return self.store.forms

    @property
    def client(self) -> YidaApi:
        return YidaApi(self.api.calls, self.app, self.api.clock)

    async def run(self, seconds: float = 0) -> None:
        """Once, after so many seconds."""
        self.api.clock.pass_s(seconds)
        organisation = OrganisationApi(self.api.calls, Organisation(self.app.corp, self.app.user_id))
        await self.sync.run([self.client], [organisation])

    def happen(self, *events: TaskEvent, announced: bool = True) -> None:
        """These happen at DingTalk, and a callback says so: without values, if it is not a create."""
        for each in events:
            self.api.company.happened(each)
            if announced:
                self.topics.arrive(each)

    def edit(self, instance_id: str, **values: str) -> None:
        """Somebody edits the form at DingTalk, and no callback says so."""
        self.api.dingtalk.change_form(instance_id, "u-admin", **values)

    def was_scanned(self, *forms: str) -> None:
        """Scans of these forms ended now, and a pass has read them."""
        now_ms = self.api.clock.now_ms()
        for each in forms:
            for work in (WORK,) if each == ORDINARY else (WORK, RECONCILE):
                self.store.cursors.move(CursorKey(work, CORP_ID, self.app.app_type, each), Cursor(0, now_ms))

    def calls(self) -> int:
        return self.api.budget.used(CORP_ID).day


@asynccontextmanager
async def forms(
    folder: Path,
    *events: TaskEvent,
    allowance: Allowance = ENOUGH,
    rules: FormRules = RULES,
    scanned: Iterable[str] = (FORM, ORDINARY),
    **app: Any,
) -> AsyncGenerator[Forms]:
    """``events`` happened before anything was read. ``scanned``: the forms that need no first scan."""
    async with fake_api(*events, allowance=allowance, database=open_database(folder)) as api:
        api.dingtalk.ordinary_forms.add(ORDINARY)
        api.dingtalk.faults.calls_per_month = 10**9
        found = Forms(api, replace(api.client.app, **app), folder, rules)
        found.was_scanned(*scanned)
        await found.run()
        yield found


def truth(found: Forms, *, since_ms: int = 0) -> dict[str, dict[str, str | None]]:
    """The values of every instance that DingTalk has now; without rows of ORDINARY that changed before that time."""
    return {
        each.instance_id: dict(each.form_data)
        for each in found.api.company.instances(at_ms=found.api.clock.now_ms())
        if each.form_uuid is not None and (each.form_uuid != ORDINARY or each.modified_ms >= since_ms)
    }


def values(found: Forms) -> dict[str, dict[str, str | None]]:
    return {key: dict(each.data) for key, each in found.topics.newest().items() if not each.deleted}
