"""Yida's callbacks as events: the only module with their field names.

``locate`` finds the app before anything is verified, and reads nothing else. ``event_of`` reads the rest afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.edge.errors import OTHER_SCHEME, OTHER_SCHEME_HINT, Malformed
from taskbridge.edge.parsing import fields, strict_json
from taskbridge.edge.parsing.fields import merged, read_form, read_moment, read_people, read_person
from taskbridge.edge.parsing.strict_json import Picked, picker
from taskbridge.edge.verification.signature import SIGN, Claim
from taskbridge.schemas.events import AUTOMATIC, DELEGATE, PERSON, SOURCE_YIDA, Action, Person, TaskEvent, event_id_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACTIONS: Mapping[str, Action] = {
    "create": Action.CREATED,
    "complete": Action.COMPLETED,
    "cancel": Action.CANCELLED,
    "delete": Action.DELETED,
    "cc": Action.COPIED,
}
"""Yida's word for an action → ours."""

UNKNOWN = "unknown"
"""The action of a request below ``/yida`` or ``/sources`` whose path names no known action."""

PUSH = "push"
"""The action of a request of another system whose path has none: the body says what happened."""

_WITH_TASK = (Action.CREATED, Action.COPIED)
"""These may have ``task``, a JSON object as text that describes the task."""
_OF_ONE_TASK = (Action.COMPLETED, Action.CANCELLED)

_DELETE_KEYS = frozenset({"appType", "corpId", "formInstId", "dateTime", SIGN})
_FOREIGN_SIGNATURE = "__signature"

_TASK_INSTANCE = ("formInstanceId", "formInstId", "processInstanceId")
_URLS = ("url", "taskUrl", "detailUrl", "approveUrl", "formUrl")
_ASSIGNEES = ("actionerId", "actionerIds")
_COPIED_IN = (*_ASSIGNEES, "actualWorkId", "ccUserIds")
_PERSON_IDS = ("userId", "id")

_TEXTS = {
    "title": "title",
    "process_code": "processCode",
    "process_name": "processName",
    "form_uuid": "formUuid",
    "serial_no": "serialNo",
    "instance_status": "processInstanceStatus",
    "approved_result": "processApprovedResult",
}
_STEP = {"step_name": "showName", "step_id": "activityId"}
"""No callback is documented to have these and the next two. They are read as in the vendor's operation records."""
_EXECUTED, _AGENTS = "taskExecuteType", "operatorAgentIdList"
_DECIDERS = {"NORMAL": PERSON, "AUTO": AUTOMATIC, "FILTERED": AUTOMATIC}
_FORM_DATA = "dataMap"
_ORIGINATOR, _ORIGINATOR_NAME = "originatorId", "originatorDisplayName"
_CREATED, _FINISHED = "createTime", "finishTime"

_find_app = picker(("appType", "corpId", "originatorCorpId"))
_NO_TASK: Mapping[str, Any] = {}
_NO_KEYS = frozenset[str]()


class Callback(Claim, frozen=True, kw_only=True, gc=False):
    """What a request claims to be. It is not verified, and only the fields for verification have been read."""

    action: Action
    wire_action: str
    described: Picked | Mapping[str, Any]
    """The members of ``task``; of a long one only those that were read."""
    parameters: Mapping[str, str]


def locate(wire_action: str, parameters: Mapping[str, str], before: Callback | None = None) -> Callback:
    """Find the app that the callback claims to come from, so that its tokens can be tried.

    ``before`` is the result of another reading of the same request: a task that both have is not parsed again.

    Raises Malformed if the callback names no app, or several.
    """
    action = ACTIONS[wire_action]
    if before is not None and before.parameters.get("task") is parameters.get("task"):
        described = before.described
    else:
        described = _located(action, parameters)
    named = [each for each in (parameters.get("appType"), described.get("appType")) if not fields.is_blank(each)]
    if not named or named.count(named[0]) < len(named):
        raise _not_located("no-app", "appType is missing, or has different values in the request.", parameters)
    return Callback(
        action=action,
        wire_action=wire_action,
        app_type=fields.required_id(named[0], "appType"),
        corp_ids=_corps(parameters, described),
        sign=parameters.get(SIGN, "").strip() or None,
        other_scheme=_FOREIGN_SIGNATURE in parameters,
        extra_keys=frozenset(parameters) - _DELETE_KEYS if action is Action.DELETED else _NO_KEYS,
        described=described,
        parameters=parameters,
    )


def event_of(
    callback: Callback, signed: Mapping[str, str], *, received_at: int, skipped: Callable[[str], None] = lambda _: None
) -> TaskEvent:
    """The event of a verified callback. ``signed`` are the parameters as they were verified; times are ms.

    ``skipped`` is called with each optional field that could not be parsed; its raw value is in the event.

    Raises Malformed if a required field of the action is missing or wrong.
    """
    action, parameters = callback.action, callback.parameters
    if len(callback.corp_ids) > 1 and len(set(callback.corp_ids)) > 1:
        raise Malformed("two-corps", "corpId has different values in the request.")
    described = _described(callback)
    instance_id, task_id = _ids(callback, described)
    get = merged(described, parameters).get if described else parameters.get
    common: dict[str, Any] = {
        "event_id": event_id_for(SOURCE_YIDA, callback.wire_action, signed),
        "source": SOURCE_YIDA,
        "action": action,
        "corp_id": fields.required_id(callback.corp_id, "corpId"),
        "app_type": callback.app_type,
        "instance_id": instance_id,
        "task_id": task_id,
        "occurred_at": read_moment(get, "dateTime", received_at, skipped) or received_at,
        "received_at": received_at,
        "raw_parameters": signed,
    }
    if action is Action.DELETED:
        return TaskEvent(**common)
    common |= {name: fields.text(get(key)) for name, key in _STEP.items()}
    if action in _OF_ONE_TASK:
        actor_id = read_person(get, "actualWorkId", _PERSON_IDS, skipped)
        return TaskEvent(**common, actor_id=actor_id, decided_by=_decided_by(get, skipped))
    recipients = _COPIED_IN if action is Action.COPIED else _ASSIGNEES
    named = [source[key] for source in (described, parameters) for key in recipients if key in source]
    originator_id = read_person(get, _ORIGINATOR, _PERSON_IDS, skipped)
    texts: dict[str, Any] = {name: fields.text(get(key)) for name, key in _TEXTS.items()}
    return TaskEvent(
        **common,
        **texts,
        recipient_ids=read_people(named, "recipients", _PERSON_IDS, skipped),
        originator=Person(originator_id, fields.text(get(_ORIGINATOR_NAME))) if originator_id else None,
        url=fields.web_address(map(get, _URLS)),
        created_at=read_moment(get, _CREATED, received_at, skipped),
        finished_at=read_moment(get, _FINISHED, received_at, skipped),
        form_data=read_form(get, _FORM_DATA, skipped),
    )


def _decided_by(get: fields.Get, skipped: fields.Skipped) -> str | None:
    """None if the callback does not say, or in a word that is not known."""
    word = fields.text(get(_EXECUTED))
    found = None if word is None else _DECIDERS.get(word)
    if word is not None and found is None:
        skipped(_EXECUTED)
    agents = read_people([get(_AGENTS)], _AGENTS, _PERSON_IDS, skipped)
    return DELEGATE if agents and found is not AUTOMATIC else found


def _located(action: Action, parameters: Mapping[str, str]) -> Picked | Mapping[str, Any]:
    if action not in _WITH_TASK:
        return _NO_TASK
    text = parameters.get("task", "")
    if action is Action.COPIED and not text.strip():
        return _NO_TASK  # the shape of a cc is undocumented: it may be flat, like a complete
    try:
        return _find_app(text)
    except ValueError as error:
        detail = f"Parameter 'task' is not a JSON object: {error}." if text.strip() else "Parameter 'task' is missing."
        raise _not_located("task-json", detail, parameters) from error


def _described(callback: Callback) -> Mapping[str, Any]:
    """The members of the verified ``task``; a member that is nested too deep is text."""
    if not isinstance(callback.described, Picked):
        return callback.described
    text = callback.parameters["task"]
    try:
        return strict_json.parse(text)
    except ValueError:
        return strict_json.parse_members(text)


def _not_located(reason: str, detail: str, parameters: Mapping[str, str]) -> Malformed:
    if _FOREIGN_SIGNATURE in parameters:
        return Malformed(OTHER_SCHEME, detail + OTHER_SCHEME_HINT)
    return Malformed(reason, detail)


def _corps(parameters: Mapping[str, str], described: Picked | Mapping[str, Any]) -> list[str]:
    """The corps that are named, best first. The originator's own corp counts only if no other is named."""
    candidates = (parameters.get("corpId"), described.get("corpId"))
    named = [each for each in candidates if isinstance(each, str) and not fields.is_blank(each)]
    if named:
        return named
    fallback = described.get("originatorCorpId")
    return [fallback] if isinstance(fallback, str) and not fields.is_blank(fallback) else []


def _ids(callback: Callback, described: Mapping[str, Any]) -> tuple[str, str | None]:
    parameters = callback.parameters
    instance_id: Any = parameters.get("formInstId")
    task_id: Any = parameters.get("taskId")
    if described:
        if fields.is_blank(instance_id):
            instance_id = fields.first(described, _TASK_INSTANCE)
        if not fields.is_blank(described.get("taskId")):
            task_id = described["taskId"]
    of_task = fields.required_id if callback.action in _OF_ONE_TASK else fields.optional_id
    return fields.required_id(instance_id, "formInstId"), of_task(task_id, "taskId")
