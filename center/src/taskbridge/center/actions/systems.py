"""The systems that carry out decisions: Yida by DingTalk's API, others by a signed request."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

import httpx2
import msgspec
import structlog

from taskbridge.center.actions.conclusions import is_meant
from taskbridge.center.actions.store import DONE, OVERTAKEN, Action
from taskbridge.center.actions.targets import AGREE, HAND_OVER, REFUSE, RETURN, WITHDRAW, Endpoint
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import Task, YidaApi
from taskbridge.dingtalk.calls import (
    NOT_JSON,
    UNSENT_ERRORS,
    Absent,
    AddressLimited,
    Later,
    Refused,
    Spent,
    TooFast,
    Unexpected,
    Unsent,
)
from taskbridge.runtime.standard_webhooks import signed_headers
from taskbridge.schemas.cloudevents import iso

_DETAIL_CHARACTERS = 300
_TOO_EARLY = (408, 425, 429)
_REMARKS = {AGREE: "同意", REFUSE: "拒绝", RETURN: "退回", HAND_OVER: "转交"}
"""DingTalk's API requires a remark."""

log = structlog.get_logger(__name__)


class Received(Enum):
    """What is known of a request after it was sent."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNSENT = "unsent"
    """Or answered that it was not looked at: nothing was done."""
    UNCLEAR = "unclear"


class Answer(NamedTuple):
    """``detail``: the other system's words for the person, or empty."""

    received: Received
    detail: str = ""


class System(Protocol):
    """A system that carries out actions. Neither method raises."""

    @property
    def repeats(self) -> bool:
        """Whether the same action may be sent again without being carried out twice."""
        ...

    async def send(self, action: Action, *, now: int) -> Answer: ...

    async def read_back(self, action: Action) -> str | None:
        """DONE, OVERTAKEN, or empty if it is still to be done; None if that is not known."""
        ...


class Yida:
    """An app of Yida. Its API has no idempotency key: what may have been received is read back, never sent again."""

    repeats = False

    def __init__(self, api: YidaApi) -> None:
        self._api = api

    async def send(self, action: Action, *, now: int) -> Answer:  # noqa: ARG002 - as System
        try:
            await self._send(action)
        except (TooFast, AddressLimited, Unsent, Spent) as error:
            log.warning("action_not_sent", action_id=action.action_id, problem=str(error))
            return Answer(Received.UNSENT)
        except Refused as error:
            return Answer(Received.REFUSED, error.reason)
        except Absent:
            return Answer(Received.REFUSED)
        except (Later, Unexpected) as error:
            log.warning("action_unclear", action_id=action.action_id, problem=str(error))
            return Answer(Received.UNCLEAR)
        return Answer(Received.ACCEPTED)

    async def _send(self, action: Action) -> None:
        if action.action == WITHDRAW:
            await self._api.withdraw(action.instance_id, user_id=action.user_id)
            return
        task = Task(action.instance_id, int(action.task_id), action.user_id)
        remark = action.remark or _REMARKS[action.action]
        if action.actor_id != action.user_id:
            # There it looks as if the person had decided.
            remark += f" ({action.actor_id} 代办)"
        if action.action == HAND_OVER:
            await self._api.hand_over(task, to=action.recipient_id, remark=remark)
        elif action.action == RETURN:
            await self._api.return_to(task, step_id=action.recipient_id, remark=remark)
        else:
            await self._api.decide(task, agrees=action.action == AGREE, remark=remark)

    async def read_back(self, action: Action) -> str | None:
        try:
            return await self._read_back(action)
        except Absent:
            return OVERTAKEN
        except (Later, Refused, Unexpected) as error:
            log.warning("action_not_read_back", action_id=action.action_id, problem=str(error))
            return None

    async def _read_back(self, action: Action) -> str | None:
        if action.action == WITHDRAW:
            status = (await self._api.instance(action.instance_id)).instance_status
            return {wire.RUNNING: "", wire.TERMINATED: DONE}.get(status or "", OVERTAKEN)
        running = await self._api.running_tasks(action.instance_id)
        holders = {str(each.actual_actioner_id) for each in running if str(each.task_id) == action.task_id}
        if action.user_id in holders:
            return ""
        if action.action == HAND_OVER and action.recipient_id in holders:
            return DONE
        records = await self._api.operation_records(action.instance_id)
        its = action.task_id, action.user_id
        found = [
            is_meant(action.action, each.action_exit or each.action)
            for each in records
            if (str(each.task_id), str(each.operator_user_id)) == its and each.operate_time is not None
        ]
        if True in found or (None in found and action.action in (AGREE, REFUSE)):
            return DONE
        return None if None in found else OVERTAKEN


class OtherSystem:
    """An ``action_url``: a POST signed by Standard Webhooks, with the action's id as its idempotency key."""

    repeats = True

    def __init__(self, http: httpx2.AsyncClient, endpoint: Endpoint) -> None:
        self._http, self._endpoint = http, endpoint

    async def send(self, action: Action, *, now: int) -> Answer:
        body = msgspec.json.encode(
            {"type": "task.action.v1", "timestamp": iso(action.requested_at), "data": _data(action)}
        )
        keys = [self._endpoint.key]
        headers = {
            "content-type": "application/json",
            **signed_headers(action.action_id, str(now // 1000), body, keys=keys),
        }
        try:
            response = await self._http.post(self._endpoint.url, content=body, headers=headers)
        except UNSENT_ERRORS:
            return Answer(Received.UNSENT)
        except httpx2.HTTPError:
            return Answer(Received.UNCLEAR)
        if response.is_success:
            return Answer(Received.ACCEPTED)
        if response.is_client_error and response.status_code not in _TOO_EARLY:
            return Answer(Received.REFUSED, _detail(response))
        return Answer(Received.UNCLEAR)

    async def read_back(self, action: Action) -> str | None:  # noqa: ARG002 - as System
        return ""


def _data(action: Action) -> dict[str, str | None]:
    return {
        "action_id": action.action_id,
        "action": action.action,
        "corp_id": action.corp_id,
        "instance_id": action.instance_id.removeprefix(f"{action.source}:"),
        "task_id": action.task_id or None,
        "user_id": action.user_id,
        "actor_id": action.actor_id,
        "recipient_id": action.recipient_id or None,
        "remark": action.remark,
    }


def _detail(response: httpx2.Response) -> str:
    """The ``detail`` of a problem document (RFC 9457)."""
    try:
        said = msgspec.json.decode(response.content, type=dict[str, object]).get("detail")
    except NOT_JSON:
        said = None
    return said[:_DETAIL_CHARACTERS] if isinstance(said, str) else f"HTTP {response.status_code}"
