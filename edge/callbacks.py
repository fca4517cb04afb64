"""What Yida's callbacks say: the only place that knows their field names.

``locate`` finds the app before anything is verified; ``event_of`` understands the rest, once it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from edge.errors import OTHER_SCHEME, OTHER_SCHEME_HINT, Malformed
from edge.parsing import fields, strict_json
from edge.proof.signature import SIGN
from schemas.events import SOURCE_YIDA, Action, Person, TaskEvent, event_id_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ACTIONS: Mapping[str, Action] = {
    "create": Action.CREATED,
    "complete": Action.COMPLETED,
    "cancel": Action.CANCELLED,
    "delete": Action.DELETED,
    "cc": Action.COPIED,
}
"""Yida's word for an action → ours."""

_WITH_TASK = (Action.CREATED, Action.COPIED)
"""These may describe the task in ``task``, a JSON object as text."""
_OF_ONE_TASK = (Action.COMPLETED, Action.CANCELLED)

_DELETE_KEYS = frozenset({"appType", "corpId", "formInstId", "dateTime", SIGN})
_FOREIGN_SIGNATURE = "__signature"

_TASK_INSTANCE = ("formInstanceId", "formInstId", "processInstanceId")
_URLS = ("url", "taskUrl", "detailUrl", "approveUrl", "formUrl")
_ASSIGNEES = ("actionerId", "actionerIds")
_COPIED_IN = (*_ASSIGNEES, "actualWorkId", "ccUserIds")


class Callback(Struct, frozen=True, kw_only=True, gc=False):
    """What a request claims to be. Nothing of it is verified, and only what verification needs has been looked at."""

    action: Action
    wire_action: str
    app_type: str
    corp_ids: Sequence[str]
    """The corps that are named, best first."""
    sign: str | None
    other_scheme: bool
    """It is signed as another feature of Yida signs."""
    described: Mapping[str, Any]
    """The members of ``task``; empty for actions that have none."""
    parameters: Mapping[str, str]

    @property
    def corp_id(self) -> str | None:
        return self.corp_ids[0] if self.corp_ids else None

    def extra_keys(self, allowed: Iterable[str]) -> set[str]:
        """Keys that this action may not carry: a captured complete with renamed keys would sign as a delete."""
        return set(self.parameters) - _DELETE_KEYS - set(allowed) if self.action is Action.DELETED else set()


def locate(wire_action: str, parameters: Mapping[str, str]) -> Callback:
    """Find the app that the callback says it comes from, so that its tokens can be tried.

    Raises:
        Malformed: there is no app to be found.
    """
    action = ACTIONS[wire_action]
    described = _described(action, parameters)
    named = [each for each in (parameters.get("appType"), described.get("appType")) if not fields.is_blank(each)]
    if not named or any(each != named[0] for each in named):
        raise _not_located("no-app", "appType is missing, or differs between the places that name it.", parameters)
    return Callback(
        action=action,
        wire_action=wire_action,
        app_type=fields.required_id(named[0], "appType"),
        corp_ids=_corps(parameters, described),
        sign=parameters.get(SIGN, "").strip() or None,
        other_scheme=_FOREIGN_SIGNATURE in parameters,
        described=described,
        parameters=parameters,
    )


def event_of(callback: Callback, verified: Mapping[str, str], *, received_at: int) -> TaskEvent:
    """The event that a verified callback reports. ``verified`` are the parameters as they verified; times are ms.

    Raises:
        Malformed: the action needs something that is missing or is not what it should be.
    """
    action, parameters, described = callback.action, callback.parameters, callback.described
    if len(callback.corp_ids) > 1 and len(set(callback.corp_ids)) > 1:
        raise Malformed("two-corps", "corpId is not the same in all places.")
    instance_id, task_id = _ids(callback)
    occurred_at = fields.moment(parameters.get("dateTime"))
    common: dict[str, Any] = {
        "event_id": event_id_for(SOURCE_YIDA, callback.wire_action, verified),
        "source": SOURCE_YIDA,
        "action": action,
        "corp_id": fields.required_id(callback.corp_id, "corpId"),
        "app_type": callback.app_type,
        "instance_id": instance_id,
        "task_id": task_id,
        "occurred_at": received_at if occurred_at is None else occurred_at,
        "received_at": received_at,
        "raw_parameters": verified,
    }
    if action in _OF_ONE_TASK:
        return TaskEvent(**common, actor_id=fields.optional_id(parameters.get("actualWorkId"), "actualWorkId"))
    if action is Action.DELETED:
        return TaskEvent(**common)
    recipients = _COPIED_IN if action is Action.COPIED else _ASSIGNEES
    named = [source[key] for source in (described, parameters) for key in recipients if key in source]
    return TaskEvent(**common, recipient_ids=fields.id_union(named), **_description(described, parameters))


def _described(action: Action, parameters: Mapping[str, str]) -> Mapping[str, Any]:
    if action not in _WITH_TASK:
        return {}
    text = parameters.get("task", "")
    if action is Action.COPIED and not text.strip():
        return {}  # the shape of a cc is not documented: it may be flat, like a complete
    try:
        found = strict_json.parse(text)
    except ValueError as error:
        raise _not_located("task-json", f"task is not JSON that can be read: {error}.", parameters) from error
    if not isinstance(found, dict):
        raise _not_located("task-json", "task is not a JSON object.", parameters)
    return cast("dict[str, Any]", found)


def _not_located(reason: str, detail: str, parameters: Mapping[str, str]) -> Malformed:
    if _FOREIGN_SIGNATURE in parameters:
        return Malformed(OTHER_SCHEME, detail + OTHER_SCHEME_HINT)
    return Malformed(reason, detail)


def _corps(parameters: Mapping[str, str], described: Mapping[str, Any]) -> list[str]:
    """The corps that are named, best first; the originator's own corp counts only where no other is named."""
    candidates = (parameters.get("corpId"), described.get("corpId"))
    named = [each for each in candidates if isinstance(each, str) and not fields.is_blank(each)]
    if named:
        return named
    fallback = described.get("originatorCorpId")
    return [fallback] if isinstance(fallback, str) and not fields.is_blank(fallback) else []


def _ids(callback: Callback) -> tuple[str, str | None]:
    """The instance, and the task where there is one."""
    parameters, described = callback.parameters, callback.described
    instance_id: Any = parameters.get("formInstId")
    task_id: Any = parameters.get("taskId")
    if described:
        if fields.is_blank(instance_id):
            instance_id = fields.first(described, _TASK_INSTANCE)
        if not fields.is_blank(described.get("taskId")):
            task_id = described["taskId"]
    of_task = fields.required_id if callback.action in _OF_ONE_TASK else fields.optional_id
    return fields.required_id(instance_id, "formInstId"), of_task(task_id, "taskId")


def _description(described: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    """What a create or a cc tells about the instance; ``task`` before the parameters beside it."""

    def told(key: str) -> Any:
        value = described.get(key)
        return parameters.get(key) if fields.is_blank(value) else value

    originator_id = fields.optional_id(told("originatorId"), "originatorId")
    return {
        "originator": originator_id and Person(originator_id, fields.text(told("originatorDisplayName"))),
        "title": fields.text(told("title")),
        "url": fields.web_address(told(key) for key in _URLS),
        "process_code": fields.text(told("processCode")),
        "process_name": fields.text(told("processName")),
        "form_uuid": fields.text(told("formUuid")),
        "serial_no": fields.text(told("serialNo")),
        "instance_status": fields.text(told("processInstanceStatus")),
        "approved_result": fields.text(told("processApprovedResult")),
        "created_at": fields.moment(told("createTime")),
        "finished_at": fields.moment(told("finishTime")),
        "form_data": fields.form_values(told("dataMap")),
    }
