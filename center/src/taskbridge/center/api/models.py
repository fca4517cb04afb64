"""What the answers look like, for the OpenAPI document, with the examples of ``examples.json``.

The answers themselves are written by ``json_forms``.
"""

from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from taskbridge.runtime.problems import documented

ViewName = Literal["created", "pending", "handled", "copied"]
StatusName = Literal["PENDING", "COMPLETED", "CANCELLED", "ACTIVE", "UNKNOWN"]

ID_MAX = 256
MOMENT = "2026-01-31T08:00:00.000Z"
_source = Field(description="The sending system. Instance ids of systems other than yida are `{source}:{id}`.")
_moment = Field(description="ISO 8601, UTC, with milliseconds.", examples=[MOMENT])

_EXAMPLES: dict[str, Any] = json.loads(files("taskbridge.center.api").joinpath("examples.json").read_bytes())


def _add_example(schema: dict[str, Any], model: type[BaseModel]) -> None:
    if model.__name__ in _EXAMPLES:
        schema["examples"] = [_EXAMPLES[model.__name__]]


class _Shown(BaseModel):
    model_config = ConfigDict(json_schema_extra=_add_example)


class PersonOut(_Shown):
    user_id: str
    name: str | None


class NamedOut(_Shown):
    user_id: str
    name: str


_originator = Field(description="Name from the sender or from `people import`; null if neither is known.")
_step_name = Field(description="Name of the task's step in its process, if known.")
_decided_by = Field(
    description="`PERSON`, `AUTOMATIC` (by a rule or the system) or `DELEGATE` (by somebody for the person), if known; "
    "treat any other word as unknown."
)
_people = Field(
    default_factory=list["NamedOut"],
    description="Names of the people whose ids occur here, as far as they are known; each once.",
)

_form_title = Field(None, description="Title of the form, if `forms import` imported it.")
_form_labels = Field(
    default_factory=dict[str, str],
    description="Imported labels of the form's fields by field id, also within tables; empty if there are no values.",
)


class WaitsForOut(PersonOut):
    """One of those whom a request waits for."""

    others: int = Field(description="How many more people it waits for.")


class ItemOut(_Shown):
    """One entry of a view."""

    instance_id: str
    task_id: str | None = Field(description="Null in the views created and copied, where an entry is a whole instance.")
    view: ViewName
    title: str | None
    url: str | None = Field(description="The approval page; http or https.")
    app_type: str
    source: str = _source
    process_name: str | None
    originator: PersonOut | None = _originator
    status: StatusName
    created_at: str = Field(
        description="When the entry was added to the view. Lists are sorted by it.", examples=[MOMENT]
    )
    updated_at: str = Field(
        description="When the entry last changed. Like created_at, it is the time of the event, not of its receipt.",
        examples=[MOMENT],
    )
    step_name: str | None = _step_name
    decided_by: str | None = _decided_by
    outcome: str | None = Field(description="For a handled task: how it was decided, as the sender names it, if known.")
    finished_at: str | None = Field(
        description="In created and copied: when the instance ended, if known. In pending: not null if the instance "
        "has ended although nobody has said so of this task. Its callback was lost, which is checked; it is never due."
    )
    result: str | None = Field(description="With finished_at: how the instance ended, as the sender names it.")
    due_at: str | None = Field(
        None,
        description="In pending: when it is due, as its source says, or else by the rules in CENTER_REMINDERS_FILE.",
    )
    waits_for: WaitsForOut | None = Field(None, description="In created: whose task is pending.")


class MarksOut(_Shown):
    """What the person marked about an entry."""

    read: bool = Field(
        description="Whether it was read, and has not changed since. What the person decided, and their own request "
        "until it has ended, is read unless it was marked otherwise."
    )
    pinned: bool
    hidden_until: str | None = Field(description="Null if it is not hidden now.", examples=[MOMENT])


class MarkedItemOut(ItemOut):
    marks: MarksOut


class MarkedOut(_Shown):
    items: list[MarkedItemOut]


def _moment_of(value: object) -> object:
    """Of a text with a time only: a number would be read as seconds or milliseconds, by its size."""
    if value is not None and not (isinstance(value, str) and value[10:11] == "T"):
        raise ValueError("must be a date and a time with its zone, such as " + MOMENT)
    return value and datetime.fromisoformat(value)


Moment = Annotated[AwareDatetime | None, BeforeValidator(_moment_of)]


class MarkIn(BaseModel):
    """What to mark about an entry. Fields that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid")

    view: ViewName
    instance_id: str = Field(min_length=1, max_length=ID_MAX)
    task_id: str | None = Field(None, max_length=ID_MAX)
    read: Moment = Field(None, description="`updated_at` of the entry that was read; null: unread.")
    pinned: StrictBool = False
    hidden_until: Moment = None


class MarksIn(_Shown):
    model_config = ConfigDict(extra="forbid")

    items: list[MarkIn] = Field(min_length=1, max_length=200)


class Preferences(_Shown):
    """What a person chose for the pages; null where nothing was chosen."""

    language: Literal["zh-CN", "en"] | None = None
    theme: Literal["auto", "light", "dark"] | None = None
    notifications: StrictBool | None = Field(None, description="Whether the browser shows new pending tasks.")


class PageOut(_Shown):
    items: list[ItemOut] = Field(description="Each with `marks`, as in MarkedOut, if the query has `marks=true`.")
    next_cursor: str | None = Field(
        description="Cursor of the next page; null on the last. A search may return few items, or none, with a "
        "cursor: then there is more to search."
    )


class CountsOut(_Shown):
    created: int
    pending: int
    handled: int
    copied: int


class AppOut(_Shown):
    app_type: str
    process_name: str | None
    source: str = _source


class AppsOut(_Shown):
    items: list[AppOut]


class TaskOut(_Shown):
    task_id: str
    status: StatusName
    assignee_ids: list[str]
    actor_id: str | None
    url: str | None
    created_at: str | None = _moment
    decided_at: str | None = _moment
    outcome: str | None = Field(description="How it was decided, as the sender names it, if known.")
    remark: str | None = Field(description="Remark of the actor, if known.")
    step_name: str | None = _step_name
    step_id: str | None = Field(description="The sender's id of the step, the same in all instances of a process.")
    decided_by: str | None = _decided_by
    due_at: str | None = Field(description="When it is due, if its source says so.", examples=[MOMENT])


class CopiedOut(_Shown):
    user_id: str
    at: str = _moment


class InstanceOut(_Shown):
    """The state of a process instance: all its events added up."""

    instance_id: str
    corp_id: str
    app_type: str
    source: str = _source
    title: str | None
    url: str | None
    originator: PersonOut | None = _originator
    process_code: str | None
    process_name: str | None
    lifecycle: Literal["ACTIVE"] = Field(
        description="Always ACTIVE: a deleted instance gets the response of an unknown one."
    )
    tasks: list[TaskOut]
    copied: list[CopiedOut]
    created_at: str = Field(
        description="When it was created, as created_at of its entry in `created`.", examples=[MOMENT]
    )
    updated_at: str = _moment
    revision: int = Field(description="Number of events that have changed it.")
    form_uuid: str | None
    serial_no: str | None = Field(description="Serial number, as people see it.")
    instance_status: str | None = Field(description="Status from the sender; free text.")
    approved_result: str | None = Field(description="Result of the approval from the sender; free text.")
    finished_at: str | None = _moment
    result: str | None = Field(
        description="How it ended, once finished_at is known: approved_result, or else instance_status."
    )
    form_data: dict[str, str | None] = Field(
        description="Values of the form fields in STREAMS_STATE_FORM_FIELDS. `history` has the whole form."
    )
    form_title: str | None = _form_title
    form_labels: dict[str, str] = _form_labels
    people: list[NamedOut] = _people


class EventOut(_Shown):
    """One event: a parsed callback."""

    event_id: str
    action: Literal["CREATED", "COMPLETED", "CANCELLED", "DELETED", "COPIED", "UNKNOWN"]
    occurred_at: str = _moment
    received_at: str = _moment
    task_id: str | None
    actor_id: str | None
    recipient_ids: list[str]
    step_name: str | None = _step_name
    decided_by: str | None = _decided_by
    title: str | None
    app_type: str
    instance_status: str | None = Field(description="Status of the instance from the sender, like approved_result.")
    approved_result: str | None
    finished_at: str | None = Field(description="When the instance ended. A create event has it too, once it is known.")
    partition: int = Field(description="Partition of the event in the topic taskbridge.task-events.v1.")
    offset: int


class HistoryOut(_Shown):
    instance_id: str
    corp_id: str
    form: dict[str, str | None] = Field(description="Form values of the latest event that has any.")
    form_title: str | None = _form_title
    form_labels: dict[str, str] = _form_labels
    form_of: str | None = Field(description="Id of that event.")
    events: list[EventOut] = Field(description="Oldest first. A callback that was received twice occurs once.")
    complete: bool = Field(description="False if older events exist beyond the topic's retention or the last hundred.")
    people: list[NamedOut] = _people


class MeOut(_Shown):
    mode: Literal["open", "token", "sso"]
    name: str | None = Field(description="The token's name in the tokens file.")
    corps: list[str] = Field(description='Corps that the caller may read; ["*"] for all.')
    corp_id: str | None = Field(description="With single sign-on: the person's corp.")
    user_id: str | None = Field(description="With single sign-on: the person's user id.")
    user_name: str | None = Field(description="With single sign-on: the person's name, if known.")
    operator: bool = Field(description="Whether the caller may open /ops.")
    auditor: bool = Field(description="Whether the caller may see the audit trail.")
    session: bool = Field(description="Whether the person signed in here, and so may sign out.")
    preferences: Preferences | None = Field(description="With single sign-on: what the person chose.")
    owned_apps: list[str] = Field(description="Apps whose waiting tasks the person may see, with all their people.")


class CorpsOut(_Shown):
    items: list[str] = Field(examples=[["ding5d17e3add038d445"]])


class _CountedOut(_Shown):
    pending: int = Field(description="Pending entries. A task that waits for several people counts for each.")
    overdue: int
    oldest_at: str = Field(description="When the oldest of them was added.", examples=[MOMENT])


class WaitingProcessOut(_CountedOut):
    app_type: str
    process_name: str | None


class WaitingPersonOut(_CountedOut):
    user_id: str
    name: str | None


class WaitingOut(_Shown):
    processes: list[WaitingProcessOut]
    people: list[WaitingPersonOut]
    complete: bool = Field(description="False if there are more processes, people or entries than are counted here.")


class AuditEntryOut(_Shown):
    seq: int = Field(description="Its number, without gaps.")
    at: str
    corp_id: str
    actor: str = Field(
        description="A user id, the pseudonym of an erased person, or the name of a token; empty for this machine."
    )
    action: str
    subject: str = Field(description="What it was about, such as a corp and a user with a slash between.")
    address: str
    session: str = Field(description="First digits of the digest of the session's token.")
    sha256: str = Field(
        description="Hash of this entry and of the hash before. People are in it by pseudonyms, as in the log."
    )
    actor_name: str | None = Field(description="Name of the person, if known.")
    subject_name: str | None = Field(description="Name of the person that it was about, if known.")
    action_id: str | None = Field(description="Of an action on a task: all entries about this action have it.")
    decision: str | None = Field(description="What the action is to do, such as `agree`; known for 30 days.")
    status: str | None = Field(description="What became of the action until now, as in `/actions`; known for 30 days.")
    instance_id: str | None = Field(description="The instance that it was about.")
    task_id: str | None
    title: str | None = Field(description="Title of the instance, while it exists.")


class AuditOut(_Shown):
    items: list[AuditEntryOut]


class ActedOnIn(BaseModel):
    instance_id: str = Field(max_length=256)
    task_id: str | None = Field(None, max_length=256, description="Null to withdraw a request.")
    user_id: str | None = Field(None, max_length=256, description="Whose task it is, if it was delegated.")
    seen_revision: int | None = Field(
        None,
        ge=0,
        description="`revision` of the instance as the person saw it. If the instance has another one, the action is "
        "refused as `changed`. Without it, this is not checked.",
    )


ActionName = Literal["agree", "refuse", "return", "hand_over", "withdraw"]
_action_detail = Field(
    description="The other system's words, or one of `not-pending`, `not-delegated`, `not-possible` (tasks of this "
    "app are decided elsewhere), `not-numeric` (DingTalk knows tasks by numbers), `ended` (the whole instance has), "
    "`changed` (since `seen_revision`), `no-recipient`, `too-often` (refused five times within an hour), "
    "`unsent` (it was not sent, and is not tried again) and `unconfirmed` (it is not known whether it was carried out)."
)


_recipient = (
    "Who gets tasks that are handed over, or the id of the step to which requests are returned: null for "
    "the originator."
)


class ActionIn(_Shown):
    action: ActionName
    items: list[ActedOnIn] = Field(min_length=1, max_length=100)
    remark: str = Field("", max_length=1000)
    recipient_id: str | None = Field(None, max_length=256, description=_recipient)


class ActionOut(_Shown):
    action_id: str | None = Field(description="Null for what was refused at once, and is not stored.")
    instance_id: str
    task_id: str | None
    action: ActionName
    user_id: str = Field(description="Whose task or request it is.")
    actor_id: str = Field(description="Who acted: this person, or a delegate.")
    recipient_id: str | None = Field(description=_recipient)
    remark: str
    status: Literal["REQUESTED", "SENDING", "ACCEPTED", "UNCLEAR", "DONE", "OVERTAKEN", "REFUSED", "FAILED"] = Field(
        description="The first four are under way: to be sent, being sent, accepted by the other system, and unknown "
        "because it did not answer. OVERTAKEN: the task was decided in another manner meanwhile."
    )
    detail: str | None = _action_detail
    requested_at: str = _moment


class PossibleOut(_Shown):
    source: str
    app_type: str | None = Field(description="Null: of all apps of the source.")
    numeric_task_ids: bool = Field(description="Nothing is possible with tasks whose `task_id` is not a number.")
    actions: list[ActionName]


class ActionsOut(_Shown):
    possible: list[PossibleOut] = Field(
        description="What the caller may do with tasks of which apps. Tasks of other apps are decided elsewhere."
    )
    reason: Literal["not-signed-in", "not-yours", "not-possible"] | None = Field(
        description="Why nothing is possible: the caller did not sign in, it is another person's list, or the tasks of "
        "all apps are decided elsewhere. Null if something is."
    )
    items: list[ActionOut]


class DelegationIn(_Shown):
    delegate_id: str = Field(min_length=1, max_length=256)
    app_type: str | None = Field(None, max_length=256, description="Only tasks of this app.")
    process_name: str | None = Field(None, max_length=256, description="Only tasks of processes with this name.")
    starts_at: AwareDatetime
    ends_at: AwareDatetime


class DelegationOut(_Shown):
    delegation_id: str
    delegate: PersonOut
    app_type: str | None
    process_name: str | None
    starts_at: str = _moment
    ends_at: str = _moment


class DelegationsOut(_Shown):
    items: list[DelegationOut]


class YidaAgentOut(_Shown):
    agent: PersonOut = Field(description="Who acts.")
    principal: PersonOut = Field(description="For whom.")
    is_for_all: bool = Field(description="False if it is for tasks of some forms only.")
    starts_at: str | None = _moment
    ends_at: str | None = _moment


class YidaAgentsOut(_Shown):
    items: list[YidaAgentOut]


class DelegatedItemOut(ItemOut):
    on_behalf_of: PersonOut = Field(description="Whose task it is.")


class DelegatedOut(_Shown):
    items: list[DelegatedItemOut]


class FoundPersonOut(_Shown):
    corp_id: str
    user_id: str
    name: str | None
    department: str | None


class PeopleOut(_Shown):
    items: list[FoundPersonOut]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents that a route answers with, for its ``responses``."""
    return {status: documented(status, _MEANINGS[status]) for status in sorted(statuses)}


_MEANINGS = {
    400: "The query is invalid; the detail says why.",
    401: "The bearer token is missing or unknown.",
    403: "The caller may not read this user of this corp, or the id of the signed-in person matches nobody.",
    404: "The instance is unknown or deleted, or the caller may not read it. The three look alike.",
    429: "The caller has exceeded its query rate; retry after `Retry-After`.",
    503: "The lists are being filled, or the database does not answer; retry after `Retry-After`.",
}
