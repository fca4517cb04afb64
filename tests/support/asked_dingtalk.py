"""A fake DingTalk on loopback, and who asks it, for the tests of reconcile; time passes only where somebody waits."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from taskbridge.reconcile.apps import App, Corp
from taskbridge.reconcile.dingtalk.api import YidaApi
from taskbridge.reconcile.dingtalk.calls import Calls, open_http
from taskbridge.reconcile.kept.budget import Allowance, Budget
from taskbridge.reconcile.testing.clock import FakeClock
from taskbridge.reconcile.testing.company import Company
from taskbridge.reconcile.testing.fake import FakeDingTalk
from taskbridge.reconcile.testing.serving import served
from taskbridge.schemas.events import Action, Person, TaskEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CORP_ID, APP_TYPE, FORM = "ding1", "APP_1", "FORM-1"
SYSTEM_TOKEN, APP_SECRET = "the-system-token-of-app-1", "the-app-secret-of-ding1"
NOW = 1_790_000_000_000
"""Mon 2026-09-21 22:13:20 in China."""
MINUTE_MS = 60_000


@dataclass
class Asked:
    api: YidaApi
    budget: Budget
    clock: FakeClock
    company: Company
    dingtalk: FakeDingTalk


@asynccontextmanager
async def asked(
    *events: TaskEvent,
    allowance: Allowance | None = None,
    database: sqlite3.Connection | None = None,
    attempts: int = 3,
) -> AsyncGenerator[Asked]:
    """The API of one app, over HTTP; these events happened."""
    clock, company = FakeClock(NOW), Company(events)
    dingtalk = FakeDingTalk(
        company, clock, system_tokens={APP_TYPE: SYSTEM_TOKEN}, app_key="key-1", app_secret=APP_SECRET
    )
    corp = Corp(CORP_ID, "key-1", SecretStr(APP_SECRET))
    app = App(corp, APP_TYPE, SecretStr(SYSTEM_TOKEN), dingtalk.user_id, ())
    allowed = allowance or Allowance(per_second=10, per_day=10_000, per_month=100_000)
    budget = Budget(database or sqlite3.connect(":memory:", isolation_level=None), allowed, clock)
    with served(dingtalk.app) as url:
        async with open_http(url, timeout_s=10) as http:
            calls = Calls(http, corp, budget, clock, attempts=attempts)
            yield Asked(YidaApi(calls, app, clock), budget, clock, company, dingtalk)


def filed(instance_id: str = "I-1", at: int = NOW - 60 * MINUTE_MS, **more: object) -> TaskEvent:
    """An instance begins; ``more`` are further fields of the event."""
    fields: dict[str, object] = {
        "event_id": f"filed {instance_id} {at}",
        "source": "yida",
        "action": Action.CREATED,
        "corp_id": CORP_ID,
        "app_type": APP_TYPE,
        "instance_id": instance_id,
        "occurred_at": at,
        "received_at": at,
        "created_at": at,
        "form_uuid": FORM,
        "process_code": "TPROC--1",
        "title": f"Request {instance_id}",
        "originator": Person("u-zhang", "张红"),
    }
    return TaskEvent(**{**fields, **more})  # pyright: ignore[reportArgumentType]


def assigned(task_id: str, *user_ids: str, at: int, instance_id: str = "I-1", **more: object) -> TaskEvent:
    event_id = f"assigned {instance_id} {task_id} {at}"
    return filed(instance_id, at, event_id=event_id, task_id=task_id, recipient_ids=user_ids, **more)


def happened(action: Action, at: int, *, instance_id: str = "I-1", **more: object) -> TaskEvent:
    """What tells nothing of the instance: a decision, a deletion."""
    fields: dict[str, object] = {
        "event_id": f"{action} {instance_id} {more} {at}",
        "source": "yida",
        "action": action,
        "corp_id": CORP_ID,
        "app_type": APP_TYPE,
        "instance_id": instance_id,
        "occurred_at": at,
        "received_at": at,
    }
    return TaskEvent(**{**fields, **more})  # pyright: ignore[reportArgumentType]
