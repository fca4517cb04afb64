"""The simulated company: the same events by the same seed, and callbacks that the edge accepts."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import httpx2
from pydantic import SecretStr

from taskbridge.dingtalk.api import Task, YidaApi
from taskbridge.dingtalk.apps import App, Corp
from taskbridge.dingtalk.calls import Calls, Pace
from taskbridge.edge.decision.callbacks import event_of, locate
from taskbridge.local.company import EMPLOYEES, busiest
from taskbridge.local.demo import story
from taskbridge.local.simulation import Posting, SimulatedApp, SimulatedDingTalk, Simulation
from taskbridge.runtime.bounded_http import open_http
from taskbridge.runtime.clock import SystemClock
from taskbridge.schemas.events import Action, Status, TaskEvent, TaskState
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskbridge.streams.fold.instance import Instance

APPS = [SimulatedApp("APP_1", "corp", "T1"), SimulatedApp("APP_2", "corp", "T2")]


def life(seed: int, count: int = 400, *, chaos: float = 0.0) -> list[Posting]:
    simulation = Simulation(APPS, seed=seed, chaos=chaos)
    return [simulation.next(1_700_000_000_000 + 100 * number) for number in range(count)]


def event(posting: Posting) -> TaskEvent:
    return event_of(locate(posting.action, posting.parameters), posting.parameters, received_at=2_000_000_000_000)


def states_after(postings: list[Posting]) -> dict[str, TaskState]:
    states: dict[str, Instance] = {}
    for each in map(event, postings):
        states[each.instance_id] = fold(states.get(each.instance_id), each)
    return {instance_id: each.state for instance_id, each in states.items()}


async def at_dingtalk(dingtalk: SimulatedDingTalk, act: Callable[[dict[str, YidaApi]], Awaitable[None]]) -> None:
    """Act by the API of each app, over HTTP."""
    fake, clock = dingtalk.fake, SystemClock()
    corp = Corp("corp", fake.app_key, SecretStr(fake.app_secret))
    with dingtalk.served(0) as url:
        async with open_http(url, timeout_s=10) as http:
            calls = Calls(http, corp, Pace(20, clock), clock, attempts=3)
            apps = [App(corp, each.app_type, SecretStr(each.system_token), fake.user_id, ()) for each in APPS]
            await act({each.app_type: YidaApi(calls, each, clock) for each in apps})


def test_the_same_seed_repeats_the_events() -> None:
    assert life(7, chaos=0.2) == life(7, chaos=0.2)
    assert life(7) != life(8)


def test_every_callback_is_one_that_the_edge_interprets() -> None:
    events = [event(each) for each in life(1, 1000)]

    assert {each.action for each in events} == set(Action) - {Action.UNKNOWN}
    assert len({each.event_id for each in events}) == len(events)
    people = {each.user_id for each in EMPLOYEES}
    assert all({*each.recipient_ids} <= people for each in events)
    assert {len(each.recipient_ids) for each in events if each.task_id and each.action is Action.CREATED} >= {1, 2, 3}
    assert all(each.title and each.form_data and each.originator for each in events if each.action is Action.CREATED)


def test_tasks_have_numbers_so_that_they_can_be_decided() -> None:
    ids = {each.task_id for each in map(event, life(1))} - {None}
    assert [each for each in ids if not (each or "").isdecimal()] == []
    story_ids = {
        each.task_id
        for each in (event(Posting(APPS[0], step.action, step.encoding, step.parameters)) for step in story())
    }
    assert [each for each in story_ids - {None} if not (each or "").isdecimal()] == []


def test_events_of_an_instance_are_in_order() -> None:
    of_instance: dict[str, list[TaskEvent]] = defaultdict(list)
    for each in life(2, 1500):
        of_instance[event(each).instance_id].append(event(each))

    finished = 0
    for events in of_instance.values():
        assert events[0].action is Action.CREATED
        assert events[0].task_id is None
        created = {each.task_id for each in events if each.action is Action.CREATED}
        assert {each.task_id for each in events if each.task_id} <= created
        assert all(each.action is not Action.DELETED for each in events[:-1])
        decided = Counter(each.task_id for each in events if each.action in (Action.COMPLETED, Action.CANCELLED))
        assert all(count == 1 for count in decided.values())
        finished += bool(decided)
    assert finished > 50


def test_without_chaos_nothing_comes_twice_and_with_it_some_does() -> None:
    assert {each.kind for each in life(3)} == {"callback"}
    chaotic = life(3, 1000, chaos=0.2)
    kinds = Counter(each.kind for each in chaotic)
    assert 40 < kinds["repeated"] < 200
    assert 40 < kinds["out of order"] < 200

    ids = Counter(event(each).event_id for each in chaotic)
    assert max(ids.values()) > 1
    times = [event(each).occurred_at for each in chaotic]
    assert any(later < earlier for earlier, later in itertools.pairwise(times))


def test_what_people_decide_at_dingtalk_comes_as_its_callback_and_the_company_goes_on() -> None:
    dingtalk = SimulatedDingTalk(APPS)
    simulation = Simulation(APPS, seed=3, happened=dingtalk.happened)
    dingtalk.fake.on_change = simulation.decided
    given = [simulation.next(1_700_000_000_000 + 100 * number) for number in range(100)]
    agreed, handed_over, returned, withdrawn = itertools.islice(
        ((each, task) for each in dingtalk.company.instances(at_ms=1_700_000_010_000) for task in each.open_tasks), 4
    )
    names = {task.task_id: task.assignee_ids[0] for _, task in (agreed, handed_over, returned)}

    async def decide(apis: dict[str, YidaApi]) -> None:
        for instance, task in (agreed, handed_over, returned):
            of = Task(instance.instance_id, int(task.task_id), names[task.task_id])
            its = apis[instance.app_type]
            if instance is agreed[0]:
                await its.decide(of, agrees=True, remark="ok")
            elif instance is handed_over[0]:
                await its.hand_over(of, to=busiest().user_id, remark="ok")
            else:
                await its.return_to(of, step_id="", remark="ok")
        instance = withdrawn[0]
        assert instance.originator is not None
        await apis[instance.app_type].withdraw(instance.instance_id, user_id=instance.originator.user_id)

    asyncio.run(at_dingtalk(dingtalk, decide))
    callbacks = [simulation.next(1_700_000_020_000 + number) for number in range(7)]
    given += callbacks + [simulation.next(1_700_000_030_000 + 100 * number) for number in range(400)]
    states = states_after(given)
    for instance, task in (agreed, handed_over, returned):
        state = states[instance.instance_id]
        [decided] = [each for each in state.tasks if each.task_id == task.task_id]
        assert (decided.status, decided.actor_id) == (Status.COMPLETED, names[task.task_id])
    [colleagues] = [each for each in states[handed_over[0].instance_id].tasks if each.status is Status.PENDING]
    assert colleagues.assignee_ids == (busiest().user_id,)
    assert states[agreed[0].instance_id].finished_at is not None
    ended = states[withdrawn[0].instance_id]
    assert (ended.instance_status, {each.status for each in ended.tasks} >= {Status.CANCELLED}) == ("TERMINATED", True)


def test_dingtalk_is_served_on_loopback_while_the_company_is_at_work() -> None:
    dingtalk = SimulatedDingTalk(APPS)
    with dingtalk.served(0) as url:
        answer = httpx2.get(f"{url}/v1.0/yida/forms", trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (400, "InvalidAuthentication")


def test_no_token_is_ever_shown() -> None:
    assert "T1" not in repr(APPS[0])
    assert not any("T1" in value for each in life(6) for value in each.parameters.values() if each.action != "create")
