"""``feishu-approval``: the instance and its tasks in Feishu's approval center, as a third-party approval.

Of ``POST /open-apis/approval/v4/external_instances``, with ``update_mode`` UPDATE: what is not named stays as it is.
People need their Feishu id in the people topic.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr  # noqa: TC002 - pydantic reads it

from taskbridge.schemas.json_forms import to_json
from taskbridge.webhooks.formats.base import (
    JSON,
    Answer,
    DeliveryProblem,
    Options,
    TokenRequest,
    accepted,
    checked,
    object_of,
    text,
    with_token,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.webhooks.formats.base import Attempt, Call

_TOKEN_PATH = "/open-apis/auth/v3/tenant_access_token/internal"  # noqa: S105 - a path
_INVALID_TOKEN = (99991661, 99991663, 99991668)
_RESULTS = {"agree": "APPROVED", "disagree": "REJECTED", "refuse": "REJECTED", "terminated": "CANCELED"}


class _Options(Options):
    app_id: str
    app_secret: SecretStr
    """`env:NAME` and `file:PATH` name where it is."""
    approval_code: str
    """Of the third-party approval definition."""
    people_id: str = "feishu_open_id"
    """Name of the `open_id` in the people topic."""


def options(given: Mapping[str, Any], read: Callable[[str], str]) -> _Options:
    return checked(_Options, given, read)


async def send(attempt: Attempt, call: Call) -> Answer:
    data = attempt.data
    wanted: _Options = attempt.options
    open_id = await attempt.other_id(data["corp_id"], data["recipient_id"], wanted.people_id)
    if open_id is None:
        raise DeliveryProblem(f"the people topic has no {wanted.people_id} of {data['recipient_id']}")
    body = {"app_id": wanted.app_id, "app_secret": wanted.app_secret.get_secret_value()}
    url = f"{attempt.url.rstrip('/')}/open-apis/approval/v4/external_instances"
    instance = to_json(instance_of(data, wanted.approval_code, open_id))

    async def send_with(token: str) -> Answer:
        headers = {"content-type": f"{JSON}; charset=utf-8", "authorization": f"Bearer {token}"}
        return await call("POST", url, headers, instance)

    request = TokenRequest(_TOKEN_PATH, body, ("tenant_access_token", "expire"))
    answer = await with_token(attempt, call, request, send_with, _is_refused)
    return accepted(answer, "Feishu", is_documented=lambda body: body.get("code") == 0)


def _is_refused(answer: Answer) -> bool:
    """Whether Feishu refuses the token."""
    return object_of(answer.body).get("code") in _INVALID_TOKEN


def instance_of(data: Mapping[str, Any], approval_code: str, open_id: str) -> dict[str, Any]:
    """The request for one entry: the instance, and this person's task, copy or request in it."""
    links = {"pc_link": text(data["url"]), "mobile_link": text(data["url"])}
    entered, updated = _ms(data["entered_at"]), _ms(data["updated_at"])
    finished = _ms(data["finished_at"])
    found: dict[str, Any] = {
        "approval_code": approval_code,
        "instance_id": data["instance_id"],
        "status": _status(data),
        "links": links,
        "title": "@i18n@title",
        "form": [],
        "start_time": entered,
        "end_time": finished,
        "update_time": updated,
        "update_mode": "UPDATE",
        "i18n_resources": [
            {
                "locale": "zh-CN",
                "is_default": True,
                "texts": [{"key": "@i18n@title", "value": text(data["title"] or data["process_name"])}],
            }
        ],
    }
    match data["view"]:
        case "created":
            found["open_id"] = open_id
        case "copied":
            cc = {"cc_id": f"cc-{data['instance_id']}-{open_id}", "open_id": open_id, "links": links}
            found["cc_list"] = [cc | {"read_status": "UNREAD", "title": "@i18n@title", "update_time": updated}]
        case _:
            its_id = f"task-{data['task_id'] or data['instance_id']}-{open_id}"
            task = {"task_id": its_id, "open_id": open_id, "links": links, "title": "@i18n@title"}
            ends = {"create_time": entered, "end_time": _ms(data["occurred_at"]) if _is_done(data) else "0"}
            found["task_list"] = [task | ends | {"status": _task_status(data), "update_time": _ms(data["occurred_at"])}]
    return found


def _is_done(data: Mapping[str, Any]) -> bool:
    return data["view"] == "handled" or data["change"] == "REMOVED"


def _task_status(data: Mapping[str, Any]) -> str:
    if not _is_done(data):
        return "PENDING"
    return _RESULTS.get(text(data["outcome"]).lower(), "DONE")


def _status(data: Mapping[str, Any]) -> str:
    """Of the instance: pending until it has ended."""
    if data["finished_at"] is None:
        return "DELETED" if data["view"] == "created" and data["change"] == "REMOVED" else "PENDING"
    return _RESULTS.get(text(data["result"]).lower(), "APPROVED")


def _ms(moment: str | None) -> str:
    """Milliseconds since 1970, as text; 0 for none."""
    return "0" if moment is None else str(int(datetime.fromisoformat(moment).timestamp() * 1000))
