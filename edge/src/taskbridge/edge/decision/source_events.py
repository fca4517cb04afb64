"""Events of other systems: verifies a request, parses its body, and builds the event.

A body is a CloudEvent 1.0 in JSON, in structured or binary mode, whose data has the names of an event's fields; or it
has the source's own format, see ``formats``. Nothing is parsed before it is verified.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.decision.formats import read_camunda, read_flowable, read_todo
from taskbridge.edge.errors import Malformed, UnknownPath, UnsupportedType, Unverified
from taskbridge.edge.parsing import fields, strict_json
from taskbridge.edge.parsing.fields import read_form, read_moment, read_people, read_person
from taskbridge.edge.parsing.parameters import text_of
from taskbridge.edge.verification.signature import bearer_digest
from taskbridge.runtime import standard_webhooks
from taskbridge.schemas.events import (
    AUTOMATIC,
    DELEGATE,
    MAX_ID_CHARACTERS,
    PERSON,
    Action,
    Person,
    TaskEvent,
    event_id_for,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.edge.parsing.fields import Get, Skipped
    from taskbridge.edge.request import Received
    from taskbridge.edge.verification.credentials import Source, Token

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
DATA = "data"

_HEADER = "ce-"
_DATA_BASE64 = "data_base64"
_NEEDED = ("specversion", "id", "source", "type")
_VERSION = "1.0"


def attributes_of(headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """The attributes of the event, with extensions, and ``data``, which is the JSON text itself.

    The headers of binary mode are not signed: of two requests with one id, the first one counts.

    Raises:
        Malformed: Not a CloudEvent 1.0 in JSON with data, or an attribute occurs twice.
        UnsupportedType: A batch, or not JSON.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == BATCH:
        raise UnsupportedType("batch", "Batches are not supported. Send each event in its own request.")
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedType("content-type", f"Send {STRUCTURED}, or application/json with the ce- headers.")
    body = body.removeprefix(BOM_UTF8)
    if media_type == STRUCTURED or _HEADER + "specversion" not in headers:
        found = _structured(body)
    else:
        found = {
            name.removeprefix(_HEADER): unquote(value) for name, value in headers.items() if name.startswith(_HEADER)
        } | {DATA: text_of(body, "utf-8")}
    missing = [name for name in _NEEDED if not found.get(name, "").strip()]
    if missing or found["specversion"] != _VERSION:
        detail = f"Attribute {missing[0]} is missing." if missing else f"Attribute specversion must be {_VERSION}."
        raise Malformed("cloudevent", f"The request is not a CloudEvent {_VERSION}: {detail}")
    if DATA not in found:
        raise Malformed("cloudevent", "The event has no data.")
    return found


def members(text: str | bytes, what: str) -> dict[str, str | None]:
    """The members of a JSON object: texts, null, and everything else as JSON text.

    Raises Malformed if it is none, has too many members, or one of them twice.
    """
    try:
        given = strict_json.members(text)
    except ValueError as error:
        raise Malformed("json", f"{what} is not a JSON object: {error}.") from error
    found = dict(given)
    if len(found) < len(given):
        raise Malformed("duplicate-key", "A member occurs twice.")
    return found


def _structured(body: bytes) -> dict[str, str]:
    found = {name: value for name, value in members(body, "the body").items() if value is not None}
    packed = found.pop(_DATA_BASE64, None)
    if packed is None:
        return found
    if DATA in found:
        raise Malformed("cloudevent", "The event has both data and data_base64.")
    try:
        return found | {DATA: text_of(base64.b64decode(packed, validate=True), "utf-8")}
    except (binascii.Error, ValueError) as error:
        raise Malformed("cloudevent", "data_base64 is not valid base64.") from error


_OF_ONE_TASK = (Action.COMPLETED, Action.CANCELLED)
_NAMING_PEOPLE = (Action.CREATED, Action.COPIED)
_TEXTS = (
    *("title", "process_code", "process_name", "form_uuid", "serial_no", "instance_status", "approved_result"),
    *("outcome", "remark", "step_name", "step_id"),
)
DATA_KEYS = (
    *("corp_id", "app_type", "instance_id", "task_id", "recipient_ids", "actor_id", "originator", "url", *_TEXTS),
    *("decided_by", "due_at", "created_at", "finished_at", "form_data"),
)
_PERSON_IDS = ("user_id", "id")

_DECIDERS = (PERSON, AUTOMATIC, DELEGATE)
_TIME = "time"

_FORMATS = {"flowable": read_flowable, "camunda": read_camunda, "todo": read_todo}
"""Format → function from a body to the action and the fields of an event."""


def verify(received: Received, body: bytes, source: Source) -> Token:
    """Check that the source signed this body, or sent one of its bearer tokens; returns the secret that it used.

    The timestamp is compared with the time of receipt, so that an entry of the quarantine does not become stale.

    Raises Unverified if it did not.
    """
    if source.bearers and standard_webhooks.SIGNATURE not in received.headers:
        return _bearer(received, source)
    return _signer(received, body, source)


def _signer(received: Received, body: bytes, source: Source) -> Token:
    message_id, timestamp, signatures = (
        received.headers.get(name, "")
        for name in (standard_webhooks.ID, standard_webhooks.TIMESTAMP, standard_webhooks.SIGNATURE)
    )
    if not (message_id and timestamp and signatures):
        raise Unverified("no-sign")
    if not standard_webhooks.is_timely(timestamp, received_at=received.received_at):
        raise Unverified("untimely")
    found = standard_webhooks.matching(message_id, timestamp, body, keys=source.keys, signatures=signatures)
    if not any(found):
        raise Unverified("wrong-sign")
    return source.secrets[found.index(True)]


def _bearer(received: Received, source: Source) -> Token:
    given = received.bearer_sha256 or bearer_digest(received.headers.get("authorization"))
    if given is None:
        raise Unverified("no-sign")
    # Every token is compared, so that the time does not show which one matched.
    found = [hmac.compare_digest(digest, given) for digest in source.bearer_digests]
    if not any(found):
        raise Unverified("wrong-sign")
    return source.bearers[found.index(True)]


def event_of(received: Received, body: bytes, source: Source, *, skipped: Skipped = lambda _: None) -> TaskEvent:
    """The event of a verified request. A repetition of the request is the same event.

    ``skipped`` is called with each optional field that could not be parsed; its raw value is in the event.

    Raises:
        Malformed: Not in the source's format, or a required field is missing or wrong.
        UnsupportedType: Not a CloudEvent in JSON.
        UnknownPath: Neither the path nor the body names an action.
        Unverified: It names another corp than the source's.
    """
    action, data, raw = _reported(received, body, source)
    if not fields.is_blank(data.get("corp_id")) and data["corp_id"] != source.corp_id:
        raise Unverified("other-corp")
    if standard_webhooks.SIGNATURE in received.headers:
        raw |= {standard_webhooks.ID: received.headers[standard_webhooks.ID]}
    received_at = received.received_at
    of_one_task, names_people = action in _OF_ONE_TASK, action in _NAMING_PEOPLE
    get = data.get
    texts: dict[str, Any] = {name: fields.text(get(name)) for name in _TEXTS}
    return TaskEvent(
        event_id=event_id_for(source.name, received.wire_action, raw),
        source=source.name,
        action=action,
        corp_id=source.corp_id,
        app_type=fields.required_id(get("app_type"), "app_type"),
        instance_id=_instance_id(get("instance_id"), source.name),
        task_id=(fields.required_id if of_one_task else fields.optional_id)(get("task_id"), "task_id"),
        occurred_at=read_moment(get, _TIME, received_at, skipped) or received_at,
        received_at=received_at,
        raw_parameters=raw,
        actor_id=read_person(get, "actor_id", _PERSON_IDS, skipped) if of_one_task else None,
        recipient_ids=read_people([get("recipient_ids")], "recipient_ids", _PERSON_IDS, skipped)
        if names_people
        else (),
        decided_by=_decided_by(get, skipped) if of_one_task else None,
        due_at=read_moment(get, "due_at", None, skipped),
        originator=_originator(get, skipped),
        url=fields.web_address([get("url")]),
        created_at=read_moment(get, "created_at", received_at, skipped),
        finished_at=read_moment(get, "finished_at", received_at, skipped),
        form_data=read_form(get, "form_data", skipped),
        **texts,
    )


def _reported(received: Received, body: bytes, source: Source) -> tuple[Action, Mapping[str, Any], dict[str, str]]:
    """The action, the fields of the event, and the part of the request that is stored in it."""
    action = ACTIONS.get(received.wire_action)
    read = _FORMATS.get(source.format)
    if read is None:
        if action is None:
            raise UnknownPath
        attributes = attributes_of(received.headers, body)
        return action, {**_data(attributes[DATA], levels=1), _TIME: attributes.get(_TIME)}, attributes
    text = text_of(body.removeprefix(BOM_UTF8), "utf-8")
    reported, data = read(_data(text, levels=2))  # the action may be described in a member
    # The action of the path overrides it: some senders have an address for each action.
    action = action or reported
    if action is None:
        raise Malformed("unknown-event", f"The body is no event of a task or instance in the format {source.format}.")
    return action, data, {"body": text}


def _data(text: str, *, levels: int) -> Mapping[str, Any]:
    """The members of ``data``; on the first ``levels``, a member that is nested too deep is text."""
    members(text, DATA)
    try:
        return cast("Mapping[str, Any]", strict_json.parse(text))
    except ValueError:
        return strict_json.parse_members(text, levels=levels)


def _instance_id(value: Any, source: str) -> str:
    """The id with the source's name as prefix, so that instances of two systems never collide."""
    instance_id = f"{source}:{fields.required_id(value, 'instance_id')}"
    if len(instance_id) > MAX_ID_CHARACTERS:
        detail = f"instance_id must be a text of at most {MAX_ID_CHARACTERS - len(source) - 1} characters."
        raise Malformed("bad-instance_id", detail)
    return instance_id


def _decided_by(get: Get, skipped: Skipped) -> str | None:
    word = fields.text(get("decided_by"))
    if word is None or word in _DECIDERS:
        return word
    skipped("decided_by")
    return None


def _originator(get: Get, skipped: Skipped) -> Person | None:
    user_id = read_person(get, "originator", _PERSON_IDS, skipped)
    described = get("originator")
    name = cast("Mapping[str, Any]", described).get("name") if isinstance(described, dict) else None
    return Person(user_id, fields.text(name)) if user_id else None
