"""Copies that never arrived, found by person: with a corp token they have their time, and a page."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from support.reconcile import NOW, RULES, FakeApi, Streams, fake_api, filed, happened
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.apps import Organisation
from taskbridge.dingtalk.organisation import GetNotifyMe, OrganisationApi
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.local.fake_organisation import FakeOrganisation
from taskbridge.reconcile.repairer import Context, Tally
from taskbridge.reconcile.repairs import copied
from taskbridge.reconcile.runs import find_copies
from taskbridge.reconcile.store import Store
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskEvent, TaskState

MINUTE_MS = 60_000
CREATED, COPIED = NOW - 300 * MINUTE_MS, NOW - 200 * MINUTE_MS
LIFE = [
    filed(at=CREATED),
    happened(Action.COPIED, COPIED, recipient_ids=("u-li",)),
    filed("I-2", CREATED, url="https://yida.example/I-2"),
    happened(Action.COPIED, COPIED, instance_id="I-2", recipient_ids=("u-li",)),
    filed("I-3", CREATED),
    happened(Action.COPIED, COPIED, instance_id="I-3", recipient_ids=("u-wang",)),
]


def state_of(*events: TaskEvent) -> TaskState:
    streams = Streams()
    streams.fold(events)
    return streams.instances[events[0].instance_id].state


async def published_by(found: FakeApi, *, corp_token: str | None, lost: Action | None = Action.COPIED) -> Streams:
    """Look for the copies of two people, after all of LIFE arrived but for one kind of event."""
    streams, store = Streams(), Store(sqlite3.connect(":memory:", isolation_level=None))
    streams.fold(each for each in LIFE if each.action is not lost)
    for each in streams.instances.values():
        store.states.store(each.state)
    store.states.current_ms = NOW

    async def catch_up() -> None: ...

    organisation: OrganisationApi | None = None
    if corp_token is not None:
        given = Organisation(found.client.app.corp, "manager", SecretStr(corp_token))
        organisation = OrganisationApi(found.calls, given)
    context, people, tally = Context(store, streams, found.clock, RULES, catch_up), ["u-nobody", "u-li"], Tally()
    try:
        await find_copies(context, found.client, people, NOW - 9 * DAY_MS, tally=tally, organisation=organisation)
    finally:
        assert tally.rows == 2
    return streams


async def test_with_a_corp_token_a_lost_copy_has_its_time_and_a_page() -> None:
    async with fake_api(*LIFE) as found:
        streams = await published_by(found, corp_token=FakeOrganisation.corp_token)
        made = [(each.instance_id, each.recipient_ids, each.occurred_at, each.url) for each in streams.published]
        minute = COPIED - COPIED % MINUTE_MS
        assert made == [
            ("I-1", ("u-li",), minute, "https://yida.example/copies/I-1"),
            ("I-2", ("u-li",), minute, None),
        ]
        assert streams.instances["I-2"].state.url == "https://yida.example/I-2", "a known page stays"
        calls = {wire.GetToken.path: 1, wire.GetTaskCopies.path: 2, GetNotifyMe.path: 1}
        assert found.dingtalk.calls == calls, "nobody without a lost copy costs a call more"
        lines = streams.lines()
        streams.fold(each for each in LIFE if each.action is Action.COPIED and "u-li" in each.recipient_ids)
        assert streams.lines() == lines, "late callbacks change no list"


async def test_without_a_corp_token_a_lost_copy_counts_from_its_instance() -> None:
    async with fake_api(*LIFE) as found:
        streams = await published_by(found, corp_token=None)
        minute = CREATED - CREATED % MINUTE_MS
        assert [(each.occurred_at, each.url) for each in streams.published] == [(minute, None)] * 2
        assert found.dingtalk.calls[GetNotifyMe.path] == 0


@pytest.mark.parametrize(
    ("notice", "at_ms", "url"),
    [
        (wire.CopyNotice("I-1", COPIED, "http://yida.example/copy"), COPIED, "http://yida.example/copy"),
        (wire.CopyNotice("I-1", None, "javascript:alert(1)"), CREATED, None),
        (wire.CopyNotice("I-1", "no time", None), CREATED, None),
    ],
)
def test_only_what_a_notice_says_clearly_is_used(notice: wire.CopyNotice, at_ms: int, url: str | None) -> None:
    state = state_of(LIFE[0])
    found = copied(state, "u-li", created_ms=CREATED, notice=notice, url=None, received_at=NOW).event
    assert (found.occurred_at, found.url) == (at_ms, url)
    page = "https://yida.example/I-1"
    found = copied(state, "u-li", created_ms=CREATED, notice=notice, url=page, received_at=NOW).event
    assert found.url == page, "the page of the instance, which the apps file names"
