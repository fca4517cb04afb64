"""A delegation is an agent at Yida too, and is taken back there: once each, also across a kill and a lost answer."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs
from pydantic import SecretStr
from sqlalchemy import update

from support.acting import World, acting, older_replica
from support.center_rows import unchecked
from support.reconcile import APP_SECRET, CORP_ID, NOW
from support.sign_in import SAME_SITE, signing_in
from taskbridge.center.access.access import Caller
from taskbridge.center.access.delegations import Delegation, Delegations
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions import agents
from taskbridge.center.actions.agents import Agents
from taskbridge.center.tables import actions
from taskbridge.dingtalk.apps import Apps, Corp, Organisation
from taskbridge.dingtalk.organisation import Agent, AgentPage, CancelAgentTask, CreateAgentTask, GetAgentTasks
from taskbridge.dingtalk.wire import CODE_MONTH
from taskbridge.local.fake_organisation import FakeOrganisation
from taskbridge.runtime.refusals import BadQuery
from taskbridge.schemas.events import PersonRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from support.dingtalk import FakeClock
    from taskbridge.local.fake_answers import Given
    from taskbridge.runtime.database import Database

ANN = CORP_ID, "ann"
CALLER = Caller("sso", corp_id=CORP_ID, user_id="ann")
CORP_TOKEN = SecretStr("fake-corp-token")
OURS = Organisation(Corp(CORP_ID, "key-1", SecretStr(APP_SECRET)), "manager", CORP_TOKEN, write_agents=True)
HOUR_MS = 3_600_000
OPTIONS: dict[str, Any] = {"address": "192.0.2.1"}
INSERT, CANCEL, LIST = CreateAgentTask.path, CancelAgentTask.path, GetAgentTasks.path


class Absence:
    """Ann delegates all tasks, at Yida too."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.apps = Apps((OURS,), world.apps.apps)
        for each in ("ann", "bob"):
            world.rows.know(CORP_ID, PersonRecord(each))
        self.delegations, self.agents = Delegations(world.database, unchecked), Agents(world.database, world.systems)

    def delegate(self, *, hours: tuple[int, int] = (0, 48), app_type: str = "", process_name: str = "") -> Delegation:
        now = self.world.clock.now_ms()
        starts, ends = (now + each * HOUR_MS for each in hours)
        wanted = Delegation("", *ANN, "bob", app_type, process_name, starts, ends)
        also = partial(self.agents.write, caller=CALLER, now=now, **OPTIONS)
        return self.delegations.add(CALLER, wanted, now=now, also=also, **OPTIONS)

    def end(self, given: Delegation) -> None:
        also = partial(self.agents.take_back, caller=CALLER, now=self.world.clock.now_ms(), **OPTIONS)
        self.delegations.end(CALLER, ANN, given.delegation_id, also=also, **OPTIONS)

    def shown(self) -> list[tuple[str, str, str]]:
        found = self.agents.shown(ANN, now=self.world.clock.now_ms())
        return [(each.action, each.status, each.detail) for each in found]

    @property
    def there(self) -> list[str | None]:
        """At Yida: None for each that is not cancelled."""
        return [each.status for each in self.world.dingtalk.organisation.agents]

    def calls(self) -> tuple[int, int, int]:
        counted = self.world.dingtalk.calls
        return counted[INSERT], counted[CANCEL], counted[LIST]


@asynccontextmanager
async def away(database: Database) -> AsyncGenerator[Absence]:
    async with acting(database) as world:
        yield Absence(world)


async def test_a_delegation_is_written_once_and_removed_when_it_ends(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        given = absence.delegate()
        assert absence.shown() == [("agent", "REQUESTED", "")]
        for _ in range(3):
            await world.work(pass_s=1)
        assert absence.shown() == [("agent", "DONE", "")]
        [agent] = world.dingtalk.organisation.agents
        assert (agent.principal_user_id, agent.agent_user_id, agent.agent_type, agent.agent_category) == (
            *("ann", "bob", "NORMAL", "EXECUTE"),
        )
        assert absence.calls() == (1, 0, 0)
        absence.end(given)
        for _ in range(3):
            await world.work(pass_s=1)
        assert absence.shown() == [("agent_end", "DONE", ""), ("agent", "DONE", "")]
        assert (absence.there, absence.calls()) == (["CANCEL"], (1, 1, 1))
        assert [(who, what) for who, what, _ in world.trail] == [
            *(("ann", each) for each in ("agent", "delegated", "action_sent", "action_ended")),
            *(("ann", each) for each in ("agent_end", "undelegated", "action_sent", "action_ended")),
        ]
        world.clock.pass_s(25 * 3600)
        assert absence.shown() == []


@pytest.mark.parametrize("hours", [(-2, 2), (0, 1), (24, 48)])
async def test_an_agent_that_starts_later_is_found_too(database: Database, hours: tuple[int, int]) -> None:
    async with away(database) as absence:
        given = absence.delegate(hours=hours)
        await absence.world.work()
        await absence.world.work(pass_s=30 * 60)
        absence.end(given)
        await absence.world.work()
        assert absence.there == ["CANCEL"]


async def test_what_yida_lost_the_answer_to_is_read_back_and_not_sent_again(database: Database) -> None:
    async with away(database) as absence:
        given = absence.delegate()
        absence.world.dingtalk.faults.lost_answers = 1
        for _ in range(3):
            await absence.world.work(pass_s=15)
        assert absence.shown() == [("agent", "DONE", "")]
        assert absence.calls() == (1, 0, 1)
        absence.world.dingtalk.faults.lost_answers = 1
        absence.end(given)
        for _ in range(3):
            await absence.world.work(pass_s=15)
        assert absence.shown()[0] == ("agent_end", "DONE", "")
        assert (absence.there, absence.calls()[:2]) == (["CANCEL"], (1, 1))


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_kill_while_it_is_written(database: Database, *, arrived: bool) -> None:
    async with away(database) as absence:
        world = absence.world
        absence.delegate()
        # Killed after it was recorded as being sent, before or after the call.
        [action] = world.store.due(now=NOW)
        claimed = world.store.advance(action, status="SENDING", due_at=NOW + 120_000, attempts=1)
        system = world.systems.of(CORP_ID, action.source, action.app_type)
        if arrived and claimed is not None and system is not None:
            await system.send(claimed, now=NOW)
        for _ in range(6):
            await world.work(pass_s=60)
        found = ("DONE", "") if arrived else ("FAILED", "unconfirmed")
        assert absence.shown() == [("agent", *found)]
        assert (len(absence.there), absence.calls()[0]) == (int(arrived), int(arrived))


async def test_what_ends_while_it_is_written_is_removed_after_it(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        given = absence.delegate()
        held = world.dingtalk.faults.held = threading.Event()
        under_way = await world.dispatcher.step()
        while not world.dingtalk.faults.waiting:  # noqa: ASYNC110 - the fake is in another thread
            await asyncio.sleep(0)
        absence.end(given)
        assert absence.shown() == [("agent_end", "REQUESTED", ""), ("agent", "OVERTAKEN", "")]
        world.clock.pass_s(60)
        assert await world.dispatcher.step() == under_way, "nothing is removed before it has arrived, or never will"
        held.set()
        await asyncio.gather(*under_way)
        assert absence.there == [None]
        await world.work(pass_s=61)
        await world.work()
        assert absence.there == ["CANCEL"]
        assert absence.shown()[0] == ("agent_end", "DONE", "")


async def test_what_was_not_sent_is_not_removed(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        absence.end(absence.delegate())
        world.dingtalk.faults.is_down = True
        given = absence.delegate()
        await world.work()
        assert absence.shown()[0] == ("agent", "REQUESTED", "unsent")
        absence.end(given)
        world.dingtalk.faults.is_down = False
        await world.work(pass_s=60)
        assert absence.calls()[1:] == (0, 0)
        assert {each[:2] for each in absence.shown()} == {("agent", "OVERTAKEN")}


async def test_one_whose_time_is_over_costs_no_call(database: Database) -> None:
    async with away(database) as absence:
        given = absence.delegate(hours=(0, 1))
        await absence.world.work()
        absence.world.clock.pass_s(3601)
        absence.end(given)
        await absence.world.work()
        assert absence.calls() == (1, 0, 0)


async def test_what_yida_refuses_is_shown_with_its_words(database: Database) -> None:
    async with away(database) as absence:
        world, refused = absence.world, "已存在相同的代理关系 (failure.agent.exists)"
        given = absence.delegate()
        await world.work()
        others = list(world.dingtalk.organisation.agents)
        absence.end(given)
        for _ in range(2):
            await world.work(pass_s=1)
        world.dingtalk.organisation.agents[:] = others  # as if the person had made it there
        again = absence.delegate()
        await world.work(pass_s=1)
        assert ("agent", "REFUSED", refused) in absence.shown()
        calls = absence.calls()
        absence.end(again)
        await world.work(pass_s=60)
        assert (absence.there, absence.calls()) == ([None], calls), "the other one stays"
        world.dingtalk.faults.denied[INSERT] = "Yida.PlatformResource.Write"
        absence.delegate(hours=(1, 2))
        await world.work(pass_s=1)
        action, status, detail = absence.shown()[0]
        assert (action, status) == ("agent", "REFUSED")
        assert "Yida.PlatformResource.Write" in detail
        assert CORP_TOKEN.get_secret_value() not in detail


async def test_a_cluster_without_the_calls_turns_it_off(database: Database) -> None:
    async with away(database) as absence:
        absence.world.dingtalk.lacks = frozenset({INSERT, CANCEL, LIST})
        assert absence.agents.writes(CORP_ID)
        assert await absence.world.systems.agents(ANN) == []
        assert not absence.agents.writes(CORP_ID)
        with pytest.raises(BadQuery, match="cannot be written"):
            absence.delegate()


async def test_an_agent_that_was_removed_there_is_looked_for_once_more(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        given = absence.delegate()
        await world.work()
        world.dingtalk.organisation.agents.clear()
        absence.end(given)
        await world.work()
        assert absence.shown()[0] == ("agent_end", "REQUESTED", "unsent")
        for _ in range(2):
            await world.work(pass_s=20)
        assert absence.shown()[0] == ("agent_end", "DONE", "")
        assert absence.calls() == (1, 0, 4)


async def test_an_agent_that_the_person_made_there_is_not_touched(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        given = absence.delegate()
        await world.work()
        [ours] = world.dingtalk.organisation.agents
        same: dict[str, Any] = {"starts": ours.starts, "ends": ours.ends}
        others = [
            Agent("bob", "ann", starts=ours.starts, ends="2027-01-01T00:00Z", agent_uuid="other-time"),
            Agent("bob", "ann", **same, agent_range_value="[{}]", agent_uuid="some-forms"),
            Agent("ann", "bob", **same, agent_uuid="the-other-way"),
            Agent("bob", "ann", **same, agent_type="DEPARTURE", agent_uuid="departed"),
        ]
        world.dingtalk.organisation.agents[:0] = others
        absence.end(given)
        await world.work()
        assert absence.there == [None, None, None, None, "CANCEL"]


async def test_two_replicas_write_it_once(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        absence.delegate()
        others = [world.replica() for _ in range(2)]
        under_way = [task for each in (world.dispatcher, *others) for task in await each.step()]
        await asyncio.wait(under_way)
        assert absence.calls() == (1, 0, 0)


async def test_only_so_many_and_only_all_tasks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with away(database) as absence:
        scopes: list[dict[str, Any]] = [{"app_type": "APP"}, {"process_name": "Leave"}]
        for scope in scopes:
            with pytest.raises(BadQuery, match="all tasks"):
                absence.delegate(**scope)
        monkeypatch.setattr(agents, "MOST_A_DAY", 2)
        for _ in range(2):
            absence.end(absence.delegate())
        with pytest.raises(TooManyQueries):
            absence.delegate()
        assert absence.delegations.given(ANN, now=NOW) == [], "nothing of it is stored"
        absence.world.clock.pass_s(86_401)
        absence.delegate()


async def test_it_is_known_for_as_long_as_the_delegation_lasts(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        short, long = absence.delegate(), absence.delegate(hours=(0, 24 * 90))
        await world.work()
        await world.work()
        world.clock.pass_s(40 * 86_400)
        assert world.store.purge(now=world.clock.now_ms()) == 1
        assert [each.instance_id for each in world.stored] == [long.delegation_id]
        assert short.delegation_id != long.delegation_id
        absence.end(long)
        await world.work()
        removed = max(world.dingtalk.organisation.agents, key=lambda each: each.ends or "")
        assert removed.status == "CANCEL"


async def test_a_system_that_was_taken_out_of_the_file_meanwhile(database: Database) -> None:
    async with away(database) as absence:
        given = absence.delegate()
        await absence.world.work()
        absence.world.apps = Apps((), absence.world.apps.apps)
        absence.end(given)
        await absence.world.work()
        assert absence.shown()[0] == ("agent_end", "REQUESTED", "unsent")
        absence.world.apps = Apps((OURS,), absence.world.apps.apps)
        await absence.world.work(pass_s=60)
        assert absence.there == ["CANCEL"]


@pytest.mark.parametrize("problem", ["gateway", "down", "month", "permission"])
async def test_an_agent_is_removed_however_long_that_fails(database: Database, problem: str) -> None:
    async with away(database) as absence:
        world, faults = absence.world, absence.world.dingtalk.faults
        given = absence.delegate(hours=(0, 24 * 300))
        await world.work()
        faults.is_down = problem == "down"
        if problem == "permission":
            faults.denied[CANCEL] = "Yida.PlatformResource.Write"
        absence.end(given)
        for at in range(40):
            if problem in {"month", "gateway"}:
                answers = [(400, CODE_MONTH)] if problem == "month" else [(502, "")] * 2
                faults.answers_next.clear()
                faults.answers_next.extend(answers)
            await world.work(pass_s=60 if at < 20 else 6 * 3600)
        faults.answers_next.clear()
        action, status, detail = absence.shown()[0]
        assert (action, status, absence.there) == ("agent_end", "REQUESTED", [None])
        assert detail
        faults.is_down = False
        faults.denied.clear()
        for _ in range(2):
            await world.work(pass_s=31 * 24 * 3600)  # the calls of a month are back in the next
        assert absence.there == ["CANCEL"]
        assert all(each.due_at is None for each in world.stored)


async def test_an_agent_is_found_on_any_page_and_a_list_with_a_gap_proves_nothing(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped: list[int] = []
    whole = FakeOrganisation._agents  # pyright: ignore[reportPrivateUsage]

    def some(fake: FakeOrganisation, given: Given) -> AgentPage:
        found = whole(fake, given)
        return AgentPage(found.data[: len(found.data) - len(skipped)], found.total_count)

    monkeypatch.setattr(FakeOrganisation, "_agents", some)
    async with away(sqlite_database) as absence:
        world = absence.world
        given = absence.delegate(hours=(0, 24 * 300))
        await world.work()
        # The keyword matches their ids too.
        others = [Agent("x", f"ann{at}", starts="2026-01-01T00:00Z", ends="2027-12-01T00:00Z") for at in range(150)]
        world.dingtalk.organisation.agents[:0] = others
        skipped.append(1)
        absence.end(given)
        await world.work(pass_s=20)
        assert absence.shown()[0] == ("agent_end", "REQUESTED", "unsent")
        skipped.clear()
        for _ in range(2):
            await world.work(pass_s=20)
        assert absence.shown()[0] == ("agent_end", "DONE", "")
        assert absence.there[150:] == ["CANCEL"]


async def test_an_agent_that_is_found_is_removed_though_the_list_has_a_gap(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeOrganisation._agents  # pyright: ignore[reportPrivateUsage]

    def counted(fake: FakeOrganisation, given: Given) -> AgentPage:
        return structs.replace(whole(fake, given), total_count=7)

    monkeypatch.setattr(FakeOrganisation, "_agents", counted)
    async with away(sqlite_database) as absence:
        given = absence.delegate()
        await absence.world.work()
        absence.end(given)
        await absence.world.work(pass_s=60)
        assert (absence.there, absence.calls()) == (["CANCEL"], (1, 1, 1))


async def test_an_agent_that_starts_while_it_is_looked_for_is_found(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks: list[FakeClock] = []
    whole = FakeOrganisation._agents  # pyright: ignore[reportPrivateUsage]

    def slow(fake: FakeOrganisation, given: Given) -> AgentPage:
        found = whole(fake, given)
        for each in clocks:
            each.pass_s(20)
        return found

    monkeypatch.setattr(FakeOrganisation, "_agents", slow)
    async with away(sqlite_database) as absence:
        given = absence.delegate(hours=(1, 48))
        await absence.world.work()
        absence.end(given)
        clocks.append(absence.world.clock)
        await absence.world.work(pass_s=3570)
        assert absence.there == ["CANCEL"]


async def test_two_that_yida_cannot_tell_apart_are_not_both_written(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        given = absence.delegate()
        for _ in range(2):
            with pytest.raises(BadQuery, match="at Yida already"):
                absence.delegate()
            await world.work(pass_s=1)
        assert len(absence.delegations.given(ANN, now=NOW)) == 1
        absence.end(given)
        with pytest.raises(BadQuery, match="at Yida already"):
            absence.delegate()
        await world.work()
        await world.work(pass_s=1)
        absence.delegate()


async def test_without_consent_nothing_is_written_and_what_was_is_removed(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        given, later = absence.delegate(), absence.delegate(hours=(1, 48))
        world.apps = Apps((OURS,), world.apps.apps)
        [first, second] = world.store.due(now=NOW)
        held = first if first.instance_id == later.delegation_id else second
        assert world.store.advance(held, due_at=NOW + 60_000) is not None
        await world.work()
        world.apps = Apps((replace(OURS, write_agents=False),), world.apps.apps)
        assert not absence.agents.writes(CORP_ID)
        absence.end(given)
        for _ in range(15):
            await world.work(pass_s=60)
        assert absence.there == ["CANCEL"]
        assert ("agent", "FAILED", "unsent") in absence.shown()


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_replica_of_the_release_before_sends_nothing_of_it(sqlite_database: Database, *, is_over: bool) -> None:
    async with away(sqlite_database) as absence:
        world = absence.world
        given = absence.delegate()
        if is_over:
            await world.work()
            absence.end(given)
        calls = absence.calls()
        await asyncio.gather(*await older_replica(world).step())
        assert (absence.calls(), absence.shown()[0]) == (
            calls,
            ("agent_end" if is_over else "agent", "FAILED", "unsent"),
        )


async def test_an_agent_that_was_not_removed_is_shown_until_it_ends(database: Database) -> None:
    async with away(database) as absence:
        world = absence.world
        given = absence.delegate(hours=(0, 72))
        await world.work()
        world.dingtalk.faults.is_down = True
        absence.end(given)
        for _ in range(11):
            await world.work(pass_s=6 * 3600)
        assert [each[:2] for each in absence.shown()] == [("agent_end", "REQUESTED")]
        await world.work(pass_s=7 * 3600)
        assert absence.shown() == []
        assert {each.status for each in world.stored if each.action == "agent_end"} == {"OVERTAKEN"}


def test_over_http(database: Database, tmp_path: Path) -> None:
    with signing_in(database, tmp_path, auditors="ours/ann") as (served, _):
        ann = served.signed_in()
        path = "/v1/corps/ours/users/ann/delegations"
        starts, ends = ((datetime.now(UTC) + timedelta(days=each)).isoformat() for each in (-1, 1))
        body = {"delegate_id": "bob", "starts_at": starts, "ends_at": ends}

        def post(**more: object) -> Any:
            return ann.post(path, json={**body, **more}, headers=SAME_SITE)

        assert post(at_yida=True).status_code == 400
        assert ann.get(path).json() == {"items": [], "may_be_at_yida": False, "ended_at_yida": []}
        served.systems.writes = True
        assert post(at_yida=True, app_type="APP").status_code == 400
        found = post(at_yida=True).json()
        [item] = found["items"]
        assert (found["may_be_at_yida"], item["at_yida"]) == (True, {"status": "REQUESTED", "detail": None})
        assert len(served.wakes) == 1
        with served.database.write() as connection:
            connection.execute(update(actions).values(status="DONE", due_at=None))
        ended = ann.delete(f"{path}/{item['delegation_id']}", headers=SAME_SITE).json()
        bob = {"user_id": "bob", "name": "Bob"}
        assert ended["ended_at_yida"] == [{"delegate": bob, "status": "REQUESTED", "detail": None}]
        [entry] = ann.get("/v1/audit?action=agent_end").json()["items"]
        assert (entry["decision"], entry["instance_id"], entry["task_id"]) == ("agent_end", None, None)
        assert ann.get("/v1/corps/ours/users/ann/actions").json()["items"] == [], "it is no decision"
        assert post(at_yida=True).status_code == 400, "the same is being removed"
        later = [(datetime.now(UTC) + timedelta(days=2, hours=each)).isoformat() for each in range(10)]
        for each in later[1:]:
            assert post(at_yida=True, ends_at=each).status_code == 200
        assert post(at_yida=True, ends_at=later[0]).status_code == 429
        assert post().status_code == 200
