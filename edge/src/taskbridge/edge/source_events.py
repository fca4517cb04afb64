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

from taskbridge.edge.callbacks import ACTIONS
from taskbridge.edge.errors import Malformed, UnknownPath, UnsupportedType, Unverified
from taskbridge.edge.formats import read_camunda, read_flowable, read_todo
from taskbridge.edge.parsing import fields, strict_json
from taskbridge.edge.parsing.fields import told_form, told_moment, told_people, told_person
from taskbridge.edge.parsing.parameters import text_of
from taskbridge.edge.verification import webhooks
from taskbridge.edge.verification.signature import bearer_digest
from taskbridge.schemas.events import MAX_ID_CHARACTERS, Action, Person, TaskEvent, event_id_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.edge.parsing.fields import Noted, Told
    from taskbridge.edge.request import Received
    from taskbridge.edge.verification.credentials import Source, Token

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
DATA = "data"

_HEADER = "ce-"
_DATA_BASE64 = "data_base64"
_NEEDED = ("specversion", "id", "source", "type")
_VERSION = "1.0"


def attributes_of(headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """The attributes of the event, extensions too, and ``data``: JSON text exactly as it stands.

    The headers of binary mode are signed by nobody: what they say counts as it was said first.

    Raises:
        Malformed: it is no CloudEvent 1.0 in JSON with data, or something is given twice.
        UnsupportedType: a batch, or nothing that is JSON.
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
    """The members of a JSON object: texts, null, and the rest verbatim.

    Raises:
        Malformed: it is none that can be read, it has too many, or one of them twice.
    """
    try:
        return _once(strict_json.members(text))
    except ValueError as error:
        raise Malformed("json", f"{what} is not a JSON object: {error}.") from error


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


def _once(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    given = list(pairs)
    found = dict(given)
    if len(found) < len(given):
        raise Malformed("duplicate-key", "A member occurs twice.")
    return found


_OF_ONE_TASK = (Action.COMPLETED, Action.CANCELLED)
_NAMING_PEOPLE = (Action.CREATED, Action.COPIED)
_TEXTS = (
    *("title", "process_code", "process_name", "form_uuid", "serial_no", "instance_status", "approved_result"),
    *("outcome", "remark"),
)
DATA_KEYS = (
    *("corp_id", "app_type", "instance_id", "task_id", "recipient_ids", "actor_id", "originator", "url", *_TEXTS),
    *("created_at", "finished_at", "form_data"),
)
_PERSON_IDS = ("user_id", "id")
"""Where a person is told as an object."""

_TIME = "time"

_FORMATS = {"flowable": read_flowable, "camunda": read_camunda, "todo": read_todo}
"""Each maps what a system posts to what happened and to the names of an event's own fields."""


def verify(received: Received, body: bytes, source: Source) -> Token:
    """Prove that the source sent this body: that it signed it when the request says so, or holds one of its tokens.

    When it was received counts, so that what waits in the quarantine does not grow stale there. Returns which.

    Raises:
        Unverified: it did not.
    """
    if source.bearers and webhooks.SIGNATURE not in received.headers:
        return _bearer(received, source)
    return _signer(received, body, source)


def _signer(received: Received, body: bytes, source: Source) -> Token:
    message_id, timestamp, signatures = (
        received.headers.get(name, "") for name in (webhooks.ID, webhooks.TIMESTAMP, webhooks.SIGNATURE)
    )
    if not (message_id and timestamp and signatures):
        raise Unverified("no-sign")
    if not webhooks.is_timely(timestamp, received_at=received.received_at):
        raise Unverified("untimely")
    found = webhooks.matching(message_id, timestamp, body, keys=source.keys, signatures=signatures)
    if not any(found):
        raise Unverified("wrong-sign")
    return source.secrets[found.index(True)]


def _bearer(received: Received, source: Source) -> Token:
    given = received.bearer_sha256 or bearer_digest(received.headers.get("authorization"))
    if given is None:
        raise Unverified("no-sign")
    # Every token is compared: how long it takes shall not tell which one matched.
    found = [hmac.compare_digest(digest, given) for digest in source.bearer_digests]
    if not any(found):
        raise Unverified("wrong-sign")
    return source.bearers[found.index(True)]


def event_of(received: Received, body: bytes, source: Source, *, noted: Noted = lambda _: None) -> TaskEvent:
    """The event that a proven request reports. The same request, sent again, is the same event.

    ``noted`` is told each field that only describes and was not understood: it is left out, and raw in the event.

    Raises:
        Malformed: it is not of the source's format, or needs something that is missing or is not what it should be.
        UnsupportedType: it is nothing that is read here.
        UnknownPath: neither the path nor what was posted can say what happened.
        Unverified: it speaks for another organisation than the source's.
    """
    action, data, raw = _reported(received, body, source)
    if not fields.is_blank(data.get("corp_id")) and data["corp_id"] != source.corp_id:
        raise Unverified("other-corp")
    if webhooks.SIGNATURE in received.headers:
        raw |= {webhooks.ID: received.headers[webhooks.ID]}
    received_at = received.received_at
    of_one_task, names_people = action in _OF_ONE_TASK, action in _NAMING_PEOPLE
    told = data.get
    texts: dict[str, Any] = {name: fields.text(told(name)) for name in _TEXTS}
    return TaskEvent(
        event_id=event_id_for(source.name, received.wire_action, raw),
        source=source.name,
        action=action,
        corp_id=source.corp_id,
        app_type=fields.required_id(told("app_type"), "app_type"),
        instance_id=_instance_id(told("instance_id"), source.name),
        task_id=(fields.required_id if of_one_task else fields.optional_id)(told("task_id"), "task_id"),
        occurred_at=told_moment(told, _TIME, received_at, noted) or received_at,
        received_at=received_at,
        raw_parameters=raw,
        actor_id=told_person(told, "actor_id", _PERSON_IDS, noted) if of_one_task else None,
        recipient_ids=told_people([told("recipient_ids")], "recipient_ids", _PERSON_IDS, noted) if names_people else (),
        originator=_originator(told, noted),
        url=fields.web_address([told("url")]),
        created_at=told_moment(told, "created_at", received_at, noted),
        finished_at=told_moment(told, "finished_at", received_at, noted),
        form_data=told_form(told, "form_data", noted),
        **texts,
    )


def _reported(received: Received, body: bytes, source: Source) -> tuple[Action, Mapping[str, Any], dict[str, str]]:
    """What happened, the fields of the event, and what of the request is kept."""
    action = ACTIONS.get(received.wire_action)
    read = _FORMATS.get(source.format)
    if read is None:
        if action is None:
            raise UnknownPath
        attributes = attributes_of(received.headers, body)
        return action, {**_data(attributes[DATA], levels=1), _TIME: attributes.get(_TIME)}, attributes
    text = text_of(body.removeprefix(BOM_UTF8), "utf-8")
    told, data = read(_data(text, levels=2))  # what happened may be described in a member
    # Where the path says what happened, it is believed: some senders have an address for each.
    action = action or told
    if action is None:
        raise Malformed("unknown-event", f"The body is no event of a task or instance in the format {source.format}.")
    return action, data, {"body": text}


def _data(text: str, *, levels: int) -> Mapping[str, Any]:
    """The members of ``data``; what is nested too deep is text, on the first ``levels`` of them."""
    members(text, DATA)
    try:
        return cast("Mapping[str, Any]", strict_json.parse(text))
    except ValueError:
        return strict_json.parse_members(text, levels=levels)


def _instance_id(told: Any, source: str) -> str:
    """Under the source's name, so that the instances of two systems are never one."""
    instance_id = f"{source}:{fields.required_id(told, 'instance_id')}"
    if len(instance_id) > MAX_ID_CHARACTERS:
        detail = f"instance_id must be a text of at most {MAX_ID_CHARACTERS - len(source) - 1} characters."
        raise Malformed("bad-instance_id", detail)
    return instance_id


def _originator(told: Told, noted: Noted) -> Person | None:
    user_id = told_person(told, "originator", _PERSON_IDS, noted)
    described = told("originator")
    name = cast("Mapping[str, Any]", described).get("name") if isinstance(described, dict) else None
    return Person(user_id, fields.text(name)) if user_id else None
