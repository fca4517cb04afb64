"""People who decide tasks in a task center, the fake DingTalk that carries it out, and callbacks on request."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from sqlalchemy import delete, select
from starlette.responses import JSONResponse, Response

from support.center_rows import AnsweringCenter, fill, unchecked
from support.dingtalk import FakeClock, FaultyDingTalk
from support.reconcile import APP_SECRET, APP_TYPE, CORP_ID, NOW, SYSTEM_TOKEN, Streams, assigned
from taskbridge.center.access.access import Access, Caller
from taskbridge.center.access.delegations import Delegation, Delegations
from taskbridge.center.actions.dispatcher import ActionDispatcher
from taskbridge.center.actions.store import Action, ActionRequest, Actions
from taskbridge.center.actions.systems import Systems, always
from taskbridge.center.actions.targets import Endpoint, Endpoints
from taskbridge.center.api.talk import Talk
from taskbridge.center.tables import actions, audit, entries, instances, pseudonyms
from taskbridge.dingtalk.apps import App, Apps, Corp
from taskbridge.dingtalk.decisions import YidaApps
from taskbridge.local.fake_dingtalk import Company, served
from taskbridge.runtime import standard_webhooks
from taskbridge.runtime.standard_webhooks import key_of
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Sequence

    from starlette.types import Receive, Scope, Send

    from taskbridge.center.actions.systems import Allowed, System
    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import TaskEvent

SECRET = "whsec_" + base64.b64encode(b"the key of the other system, erp").decode()
ERP = "erp"
TARGET_APP = App(Corp(CORP_ID, "key-1", SecretStr(APP_SECRET)), APP_TYPE, SecretStr(SYSTEM_TOKEN), "manager", ())


class OtherSystem:
    """An ``action_url``: records what it gets, and answers as told."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.answers: list[Response] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        message_id, timestamp = headers[standard_webhooks.ID], headers[standard_webhooks.TIMESTAMP]
        given = headers[standard_webhooks.SIGNATURE]
        key = key_of(SECRET)
        assert standard_webhooks.matching(message_id, timestamp, body, keys=[key], signatures=given) == [True]
        self.received.append((message_id, body))
        answer = self.answers.pop(0) if self.answers else JSONResponse({}, 202)
        await answer(scope, receive, send)


class World:
    """One company on one database. Nothing happens by itself: tests deliver callbacks, and pass the time."""

    def __init__(self, database: Database, dingtalk: FaultyDingTalk, clock: FakeClock, urls: tuple[str, str]) -> None:
        self.database, self.dingtalk, self.clock = database, dingtalk, clock
        self.rows = AnsweringCenter(database, Access(None))
        self.store, self.urls, self.other = Actions(database, unchecked), urls, OtherSystem()
        self.apps = Apps((), (TARGET_APP,))
        self.endpoints = Endpoints({(CORP_ID, ERP): Endpoint(f"{urls[1]}/actions", key_of(SECRET))})
        self.callbacks: list[TaskEvent] = []
        """What happened at DingTalk by an action, and was not delivered yet."""
        self.ended: list[str] = []
        self._streams = Streams()
        dingtalk.on_change = self.callbacks.append
        fill(database, TASK_STATES.name, read=1, of=1)
        self.replicas: list[ActionDispatcher] = []
        self.systems = self._systems_of(clock)
        self.dispatcher = self.replica()
        self.talk = Talk(database, self.systems, unchecked)

    def replica(self, clock: FakeClock | None = None) -> ActionDispatcher:
        clock = clock or self.clock
        systems, ended = self._systems_of(clock), self.ended.append
        made = ActionDispatcher(self.store, self.rows.threads, systems, ended=ended, clock=clock)
        self.replicas.append(made)
        return made

    def _systems_of(self, clock: FakeClock) -> Systems:
        return Systems(
            [YidaApps(lambda: self.apps, self.urls[0], clock=clock, form_calls_per_day=20)], lambda: self.endpoints
        )

    def happens(self, *events: TaskEvent) -> None:
        """At DingTalk, and its callbacks arrive."""
        for each in events:
            self.dingtalk.company.happened(each)
        self.arrive(*events)

    def assign(self, *tasks: tuple[str, str, str]) -> None:
        """Instance, task, person."""
        self.happens(*(assigned(task, user, at=NOW - 1000, instance_id=instance) for instance, task, user in tasks))

    def arrive(self, *events: TaskEvent) -> None:
        self._streams.fold(events)
        for instance_id in {each.instance_id for each in events}:
            with self.database.write() as connection:
                number = select(instances.c.id).where(instances.c.instance_id == instance_id)
                connection.execute(delete(entries).where(entries.c.instance == number.scalar_subquery()))
                connection.execute(delete(instances).where(instances.c.instance_id == instance_id))
            self.rows.store(self._streams.instances[instance_id].state)

    def deliver(self) -> None:
        """The callbacks arrive of what people did here."""
        due, self.callbacks[:] = list(self.callbacks), []
        self.arrive(*due)

    def revision_of(self, instance_id: str) -> int:
        return self._streams.instances[instance_id].state.revision

    def act(
        self,
        action: Any,
        *tasks: tuple[str, str],
        by: str = "ann",
        to: str = "",
        remark: str = "ok",
        of: str = "",
        seen: int | None = None,
        form: str = "",
    ) -> list[Action]:
        """Instance and task; ``of`` is the person who delegated it."""
        caller = Caller("sso", corp_id=CORP_ID, user_id=by)
        wanted = [ActionRequest(of or by, instance, task, action, to, remark, seen, form) for instance, task in tasks]
        return self.store.request(caller, wanted, self.systems, address="192.0.2.1", now=self.clock.now_ms())

    def comment(self, text: str, *, by: str = "ann", instance: str = "I-1", operates: bool = False) -> Sequence[Action]:
        at: dict[str, Any] = {"address": "192.0.2.1", "now": self.clock.now_ms()}
        return self.talk.comment(self._person(by, operates=operates), instance, text, **at)

    def urge(self, text: str = "", *, by: str, instance: str = "I-1", operates: bool = False) -> Sequence[Action]:
        at: dict[str, Any] = {"address": "192.0.2.1", "now": self.clock.now_ms()}
        return self.talk.urge(self._person(by, operates=operates), instance, text, **at)

    def _person(self, user: str, *, operates: bool) -> Caller:
        return Caller("sso", corps=("*",) if operates else (), corp_id=CORP_ID, user_id=user)

    def delegate(self, user: str, delegate: str, *, hours: tuple[int, int], app_type: str = "") -> None:
        """From so many hours from now until so many."""
        caller = Caller("sso", corp_id=CORP_ID, user_id=user)
        begins, ends = (self.clock.now_ms() + each * 3_600_000 for each in hours)
        wanted = Delegation("", CORP_ID, user, delegate, app_type, "", begins, ends)
        Delegations(self.database, unchecked).add(caller, wanted, address="192.0.2.1", now=self.clock.now_ms())

    async def work(self, *, pass_s: float = 0) -> None:
        """Let time pass, and the dispatcher do what is due until it has ended."""
        self.clock.pass_s(pass_s)
        under_way = await self.dispatcher.step()
        if under_way:
            await asyncio.wait(under_way)

    async def close(self) -> None:
        for each in self.replicas:
            await each.close()
        await self.systems.close()
        self.rows.close()

    @property
    def statuses(self) -> list[tuple[str, str]]:
        return [(each.status, each.detail) for each in self.stored]

    @property
    def stored(self) -> Sequence[Action]:
        with self.database.read() as connection:
            rows = connection.execute(select(actions).order_by(actions.c.instance_id, actions.c.requested_at))
            return [Action(*row) for row in rows]

    @property
    def trail(self) -> list[tuple[str, str, str]]:
        """Who, what, and about what."""
        with self.database.read() as connection:
            who = pseudonyms.c.pseudonym == audit.c.actor
            query = select(pseudonyms.c.user_id, audit.c.action, audit.c.subject).join_from(audit, pseudonyms, who)
            return [(row[0], row[1], row[2]) for row in connection.execute(query.order_by(audit.c.seq))]


@asynccontextmanager
async def acting(database: Database) -> AsyncGenerator[World]:
    clock, company = FakeClock(NOW), Company()
    dingtalk = FaultyDingTalk(
        company, clock, system_tokens={APP_TYPE: SYSTEM_TOKEN}, app_key="key-1", app_secret=APP_SECRET
    )
    other = OtherSystem()
    with served(dingtalk) as url, served(other) as other_url:
        world = World(database, dingtalk, clock, (url, other_url))
        world.other = other
        yield world
        await world.close()


class _OlderSystems(Systems):
    """As of 0.1.0: sources are compared as they are, and each action but those of people is sent as a refusal."""

    def of(self, corp_id: str, source: str, app_type: str, *, allowed: Allowed = always) -> System | None:
        return None if source != source.strip() else super().of(corp_id, source, app_type, allowed=allowed)


def older_replica(world: World) -> ActionDispatcher:
    """Of the release before: its dispatcher does not know the removal of agents either."""
    systems = _OlderSystems([YidaApps(lambda: world.apps, world.urls[0], clock=world.clock)], lambda: world.endpoints)
    found = _OlderDispatcher(world.store, world.rows.threads, systems, clock=world.clock)
    world.replicas.append(found)
    return found


class _OlderDispatcher(ActionDispatcher):
    async def _failed(self, action: Action, status: str, detail: str, **changes: Any) -> None:
        del changes
        await self._end(action, status, detail)


async def work_or_die(world: World, chance: random.Random) -> None:
    under_way = await world.dispatcher.step()
    if chance.random() < 0.3:
        # As a kill: nothing more is recorded. What is on its way may arrive.
        await asyncio.sleep(chance.random() / 500)
        for each in under_way:
            each.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        world.dispatcher = world.replica()
    elif under_way:
        await asyncio.wait(under_way)
