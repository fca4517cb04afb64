"""``dingtalk-todo``: a DingTalk to-do for each pending entry: created, updated, and finished when it leaves the list.

Of the vendor's API (``todo_1_0`` of its SDK 2.2.65). A to-do is found again by its ``sourceId``, which is the entry's.
DingTalk shows Yida's own tasks already: filter by ``sources``. People need a ``union_id`` in the people topic.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import SecretStr  # noqa: TC002 - pydantic reads it

from taskbridge.dingtalk.wire import CODE_TOKEN, TOKEN_HEADER, token_request
from taskbridge.schemas.json_forms import to_json
from taskbridge.webhooks.formats.base import (
    JSON,
    NOTHING_TO_SEND,
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

UNION_ID = "union_id"
"""Its name in the people topic."""
_SUBJECT_CHARACTERS = 1024
_EXISTS, _MISSING = b"task exist", b"task not exist"


class _Options(Options):
    app_key: str
    app_secret: SecretStr
    """`env:NAME` and `file:PATH` name where it is."""


def options(given: Mapping[str, Any], read: Callable[[str], str]) -> _Options:
    return checked(_Options, given, read)


async def send(attempt: Attempt, call: Call) -> Answer:
    data = attempt.data
    if data["view"] != "pending":
        return NOTHING_TO_SEND
    union_id = await attempt.other_id(data["corp_id"], data["recipient_id"], UNION_ID)
    if union_id is None:
        raise DeliveryProblem(f"the people topic has no {UNION_ID} of {data['recipient_id']}: see `people import`")
    options: _Options = attempt.options
    path, body = token_request(data["corp_id"], options.app_key, options.app_secret.get_secret_value())

    async def send_with(token: str) -> Answer:
        todo = _Todo(attempt, call, union_id, token)
        if data["change"] == "REMOVED":
            return await todo.update({"done": True}, missing=Answer(HTTPStatus.OK))
        return await todo.create_or_update(data)

    request = TokenRequest(path, body, ("access_token", "expires_in"))
    return await with_token(attempt, call, request, send_with, _is_refused)


def _is_refused(answer: Answer) -> bool:
    """Whether DingTalk refuses the token."""
    is_failure = not answer.is_success
    return answer.status == HTTPStatus.UNAUTHORIZED or (is_failure and object_of(answer.body).get("code") in CODE_TOKEN)


class _Todo:
    """The to-do of one entry."""

    def __init__(self, attempt: Attempt, call: Call, union_id: str, token: str) -> None:
        self._call = call
        self._user = f"{attempt.url.rstrip('/')}/v1.0/todo/users/{quote(union_id, safe='')}/tasks"
        self._union_id = union_id
        self._headers = {"content-type": JSON, TOKEN_HEADER: token}
        self._source_id = source_id_of(attempt.data)

    async def create_or_update(self, data: Mapping[str, Any]) -> Answer:
        url = data["url"]
        body = {
            "sourceId": self._source_id,
            "subject": (data["title"] or data["process_name"] or data["instance_id"])[:_SUBJECT_CHARACTERS],
            "creatorId": self._union_id,
            "executorIds": [self._union_id],
            "isOnlyShowExecutor": True,
            **({"detailUrl": {"appUrl": url, "pcUrl": url}} if url else {}),
        }
        answer = await self._request("POST", f"?operatorId={quote(self._union_id, safe='')}", body)
        if answer.status == HTTPStatus.BAD_REQUEST and _EXISTS in answer.body:
            return await self.update({"subject": body["subject"], "done": False}, missing=answer)
        return accepted(answer, "DingTalk", is_documented=lambda body: bool(body.get("id")))

    async def update(self, body: Mapping[str, Any], *, missing: Answer) -> Answer:
        """``missing`` is the answer if there is no such to-do."""
        there = await self._request("GET", f"/sources/{quote(self._source_id, safe='')}", None)
        if there.status == HTTPStatus.NOT_FOUND or (not there.is_success and _MISSING in there.body):
            return missing
        if not there.is_success:
            return there
        accepted(there, "DingTalk", is_documented=lambda body: bool(body.get("id")))
        path = f"/{quote(text(object_of(there.body)['id']), safe='')}?operatorId={quote(self._union_id, safe='')}"
        answer = await self._request("PUT", path, body)
        return accepted(answer, "DingTalk", is_documented=lambda body: body.get("result") is True)

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        return await self._call(method, self._user + path, self._headers, b"" if body is None else to_json(body))


def source_id_of(data: Mapping[str, Any]) -> str:
    """The entry's id: the same for all its changes."""
    entry = "\0".join((data["corp_id"], data["recipient_id"], data["instance_id"], data["task_id"] or ""))
    return hashlib.sha256(entry.encode()).hexdigest()[:40]
