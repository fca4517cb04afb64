"""``flat-todo``: the flat push of Chinese OA systems' unified to-do lists, as Weaver's e-cology accepts it.

The counterpart of the edge's source format ``todo``. One record for each person and task: ``isremark`` is 0 for what is
pending, 2 for what is done, 8 for a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr  # noqa: TC002 - pydantic reads it

from taskbridge.schemas.json_forms import to_json
from taskbridge.webhooks.formats.base import JSON, NOTHING_TO_SEND, Options, accepted, checked, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.webhooks.formats.base import Answer, Attempt, Call

_FAILURES = ("0", "false")
"""What ``operResult`` or ``success`` says of a failure."""


class _Options(Options):
    system: str
    """`syscode`: the name by which the receiver knows this system."""
    token: SecretStr | None = None
    """Sent as a bearer token; `env:NAME` and `file:PATH` name where it is."""


def options(given: Mapping[str, Any], read: Callable[[str], str]) -> _Options:
    return checked(_Options, given, read)


async def send(attempt: Attempt, call: Call) -> Answer:
    body = todo_of(attempt.data, attempt.options.system)
    if body is None:
        return NOTHING_TO_SEND
    headers = {"content-type": JSON}
    if attempt.options.token is not None:
        headers["authorization"] = f"Bearer {attempt.options.token.get_secret_value()}"
    answer = await call("POST", attempt.url, headers, to_json(body))
    if answer.is_success and answer.body.strip() in (b"", b"{}"):
        return answer
    return accepted(answer, "the receiver", is_documented=_is_success)


def _is_success(body: Mapping[str, Any]) -> bool:
    """Any object that says no failure: receivers answer in forms of their own. A page of HTML is none."""
    said = {text(body.get(each)).lower() for each in ("operResult", "success")}
    return bool(body) and said.isdisjoint(_FAILURES)


def todo_of(data: Mapping[str, Any], system: str) -> dict[str, str] | None:
    """The record of a notification; None for lists that the receiver does not have."""
    match data["view"], data["change"]:
        case "pending", "REMOVED":
            state = "2"
        case "pending", _:
            state = "0"
        case "copied", "ADDED":
            state = "8"
        case _:
            return None
    originator: Mapping[str, Any] = data["originator"] or {}
    return {
        "syscode": system,
        "flowid": data["instance_id"],
        "requestname": text(data["title"]),
        "workflowname": text(data["process_name"]),
        "nodename": text(data["task_id"]),
        "pcurl": text(data["url"]),
        "appurl": text(data["url"]),
        "creator": text(originator.get("user_id")),
        "receiver": data["recipient_id"],
        "receivedatetime": _time(data["entered_at"]),
        "isremark": state,
        "viewtype": "0",
    }


def _time(moment: str | None) -> str:
    """``2026-01-31 08:00:00``, in UTC."""
    return text(moment)[:19].replace("T", " ")
