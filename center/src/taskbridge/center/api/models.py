"""The types of requests and answers: handlers return them, and the OpenAPI document shows them with ``examples.json``.

Answers are plain dictionaries, which nothing validates at run time: pyright proves that each has all fields of its
type, and no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, with_config
from typing_extensions import TypedDict  # pydantic: until Python 3.12

from taskbridge.center.actions.seen_form import DIGEST_MAX
from taskbridge.center.actions.store import ActionStatus  # noqa: TC001 - pydantic reads the annotations
from taskbridge.center.actions.targets import ActionName, RecordedName, TalkName  # noqa: TC001 - as above
from taskbridge.runtime.problems import documented
from taskbridge.schemas.events import Action, Lifecycle, Status  # noqa: TC001 - as above

ViewName = Literal["created", "pending", "handled", "copied"]

REMARK_MAX = 1000
ID_MAX = 256
MOMENT = "2026-01-31T08:00:00.000Z"


def _says(description: str, *examples: str) -> Any:
    """The text of a field in the document."""
    return Field(description=description, examples=list(examples) or None)


_MOMENT = _says("ISO 8601, UTC, with milliseconds.", MOMENT)
_Moment = Annotated[str, _MOMENT]
_KnownMoment = Annotated[str | None, _MOMENT]
_Source = Annotated[str, _says("The sending system. Instance ids of systems other than yida are `{source}:{id}`.")]

_EXAMPLES: dict[str, Any] = json.loads(files("taskbridge.center.api").joinpath("examples.json").read_bytes())


def _add_example(schema: dict[str, Any], model: type) -> None:
    if model.__name__ in _EXAMPLES:
        schema["examples"] = [_EXAMPLES[model.__name__]]


@with_config(ConfigDict(json_schema_extra=_add_example))
class _Shown(TypedDict):
    pass


class PersonOut(_Shown):
    user_id: str
    name: str | None


class NamedOut(_Shown):
    user_id: str
    name: str


_Originator = Annotated[
    PersonOut | None, _says("Name from the sender or from `people import`; null if neither is known.")
]
_StepName = Annotated[str | None, _says("Name of the task's step in its process, if known.")]
_DecidedBy = Annotated[
    str | None,
    _says(
        "`PERSON`, `AUTOMATIC` (by a rule or the system) or `DELEGATE` (by somebody for the person), if "
        "known; treat any other word as unknown."
    ),
]
_People = Annotated[
    Sequence[NamedOut],
    _says("Names of the people whose ids occur here, as far as they are known; each once."),
]


class FormOut(_Shown):
    form_title: Annotated[str | None, _says("Title of the form, if `forms import` imported it.")]
    form_labels: Annotated[
        Mapping[str, str],
        _says("Imported labels of the form's fields by field id, also within tables; empty if there are no values."),
    ]


class WaitsForOut(PersonOut):
    """One of those whom a request waits for."""

    others: Annotated[int, _says("How many more people it waits for.")]


class ItemOut(_Shown):
    """One entry of a view."""

    instance_id: str
    task_id: Annotated[str | None, _says("Null in the views created and copied, where an entry is a whole instance.")]
    view: ViewName
    title: str | None
    url: Annotated[str | None, _says("The approval page; http or https.")]
    app_type: str
    source: _Source
    process_name: str | None
    originator: _Originator
    status: Status
    created_at: Annotated[str, _says("When the entry was added to the view. Lists are sorted by it.", MOMENT)]
    updated_at: Annotated[
        str,
        _says("When the entry last changed. Like created_at, it is the time of the event, not of its receipt.", MOMENT),
    ]
    step_name: _StepName
    decided_by: _DecidedBy
    outcome: Annotated[str | None, _says("For a handled task: how it was decided, as the sender names it, if known.")]
    finished_at: Annotated[
        str | None,
        _says(
            "In created and copied: when the instance ended, if known. In pending: not null if the instance has ended "
            "although nobody has said so of this task. Its callback was lost, which is checked; it is never due."
        ),
    ]
    result: Annotated[str | None, _says("With finished_at: how the instance ended, as the sender names it.")]
    due_at: Annotated[
        str | None,
        _says("In pending: when it is due, as its source says, or else by the rules in CENTER_REMINDERS_FILE."),
    ]
    waits_for: Annotated[WaitsForOut | None, _says("In created: whose task is pending.")]


class MarksOut(_Shown):
    """What the person marked about an entry."""

    read: Annotated[
        bool,
        _says(
            "Whether it was read, and has not changed since. What the person decided, and their own request "
            "until it has ended, is read unless it was marked otherwise."
        ),
    ]
    pinned: bool
    hidden_until: Annotated[str | None, _says("Null if it is not hidden now.", MOMENT)]


class MarkedItemOut(ItemOut):
    marks: MarksOut


class MarkedOut(_Shown):
    items: Sequence[MarkedItemOut]


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


class MarksIn(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra=_add_example)

    items: list[MarkIn] = Field(min_length=1, max_length=200)


class Preferences(_Shown, total=False):
    """What a person chose for the pages; null where nothing was chosen."""

    language: Literal["zh-CN", "en"] | None
    theme: Literal["auto", "light", "dark"] | None
    notifications: Annotated[StrictBool | None, _says("Whether the browser shows new pending tasks.")]


NO_PREFERENCES: Preferences = {"language": None, "theme": None, "notifications": None}


class PushOut(_Shown):
    key: Annotated[str | None, _says("For `applicationServerKey` of the browser's `pushManager.subscribe`.")]


_Key = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]


class PushIn(BaseModel):
    """A browser's subscription."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_add_example)

    endpoint: str = Field(min_length=1, max_length=1024)
    p256dh: _Key
    auth: _Key


class PageOut(_Shown):
    items: Annotated[Sequence[ItemOut], _says("Each with `marks`, as in MarkedOut, if the query has `marks=true`.")]
    next_cursor: Annotated[
        str | None,
        _says(
            "Cursor of the next page; null on the last. A search may return few items, or none, with a "
            "cursor: then there is more to search."
        ),
    ]


class CountsOut(_Shown):
    created: int
    pending: int
    handled: int
    copied: int


class AppOut(_Shown):
    app_type: str
    process_name: str | None
    source: _Source


class AppsOut(_Shown):
    items: Sequence[AppOut]


class TaskOut(_Shown):
    task_id: str
    status: Status
    assignee_ids: Sequence[str]
    actor_id: str | None
    url: str | None
    created_at: _KnownMoment
    decided_at: _KnownMoment
    outcome: Annotated[str | None, _says("How it was decided, as the sender names it, if known.")]
    remark: Annotated[str | None, _says("Remark of the actor, if known.")]
    step_name: _StepName
    step_id: Annotated[str | None, _says("The sender's id of the step, the same in all instances of a process.")]
    decided_by: _DecidedBy
    due_at: Annotated[str | None, _says("When it is due, if its source says so.", MOMENT)]


class CopiedOut(_Shown):
    user_id: str
    at: _Moment


class InstanceOut(FormOut):
    """The state of a process instance: all its events added up."""

    instance_id: str
    corp_id: str
    app_type: str
    source: _Source
    title: str | None
    url: str | None
    originator: _Originator
    process_code: str | None
    process_name: str | None
    lifecycle: Annotated[
        Literal[Lifecycle.ACTIVE],
        _says("Always ACTIVE: a deleted instance gets the response of an unknown one."),
    ]
    tasks: Sequence[TaskOut]
    copied: Sequence[CopiedOut]
    created_at: Annotated[str, _says("When it was created, as created_at of its entry in `created`.", MOMENT)]
    updated_at: _Moment
    revision: Annotated[int, _says("Number of events that have changed it.")]
    form_uuid: str | None
    serial_no: Annotated[str | None, _says("Serial number, as people see it.")]
    instance_status: Annotated[str | None, _says("Status from the sender; free text.")]
    approved_result: Annotated[str | None, _says("Result of the approval from the sender; free text.")]
    finished_at: _KnownMoment
    result: Annotated[
        str | None,
        _says("How it ended, once finished_at is known: approved_result, or else instance_status."),
    ]
    form_data: Annotated[
        Mapping[str, str | None],
        _says("Values of the form fields in STREAMS_STATE_FORM_FIELDS. `history` has the whole form."),
    ]
    people: _People


class EventOut(_Shown):
    """One event: a parsed callback."""

    event_id: str
    action: Action
    occurred_at: _Moment
    received_at: _Moment
    task_id: str | None
    actor_id: str | None
    recipient_ids: Sequence[str]
    step_name: _StepName
    decided_by: _DecidedBy
    title: str | None
    app_type: str
    instance_status: Annotated[str | None, _says("Status of the instance from the sender, like approved_result.")]
    approved_result: str | None
    finished_at: Annotated[str | None, _says("When the instance ended. A create event has it too, once it is known.")]
    partition: Annotated[int, _says("Partition of the event in the topic taskbridge.task-events.v1.")]
    offset: int


class EventsOut(_Shown):
    events: Annotated[Sequence[EventOut], _says("Oldest first. A callback that was received twice occurs once.")]
    people: _People


class FileOut(_Shown):
    """A file that somebody attached to the form."""

    name: str
    size: Annotated[int | None, _says("In bytes, if known.")]


class HistoryOut(FormOut, EventsOut):
    instance_id: str
    corp_id: str
    form: Annotated[Mapping[str, str | None], _says("Form values of the latest event that has any.")]
    form_of: Annotated[str | None, _says("Id of that event.")]
    files: Annotated[
        Mapping[str, Sequence[FileOut]],
        _says("Attached files and images by place: the id of a field, or `SUBFORM/LINE/FIELD`, lines from 0."),
    ]
    opens_files: Annotated[bool, _says("Whether `/v1/instances/{instance_id}/files` opens them.")]
    reads_form: Annotated[bool, _says("Whether `/v1/instances/{instance_id}/form` reads the form as it is now.")]
    complete: Annotated[bool, _says("False if older events exist beyond the topic's retention or the last hundred.")]


class ChangedOut(_Shown):
    """A field whose value is not the one of the start."""

    field: str
    before: Annotated[str | None, _says("Its value at the start.")]
    user_id: Annotated[str | None, _says("Who changed it the last time, if the system says it.")]
    at: Annotated[str | None, _says("When, if the system says it.")]


class StepToComeOut(_Shown):
    name: str
    user_ids: Sequence[str]


class CurrentFormOut(_Shown):
    instance_id: str
    read_at: str
    digest: Annotated[str, _says("Of the values: `seen_form` of an action that is about these.")]
    form: Annotated[Mapping[str, str | None], _says("The values as the system has them.")]
    files: Annotated[Mapping[str, Sequence[FileOut]], _says("As in the history, of these values.")]
    changed: Annotated[
        Sequence[ChangedOut], _says("Fields that changed since the earliest event with values that is stored.")
    ]
    to_come: Annotated[
        Sequence[StepToComeOut], _says("Steps after the present one, as far as the system foresees them.")
    ]
    people: _People


class CommentIn(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra=_add_example)

    action: TalkName = "comment"
    text: str = Field("", max_length=1000, description="Plain text. If it is empty, people are urged to decide soon.")


class CommentOut(_Shown):
    """A comment as the system has it. The text is what anybody wrote: show it as text."""

    comment_id: str
    user_id: Annotated[str, _says("Who wrote it; empty if that is not known.")]
    text: str
    at: _KnownMoment
    notified_id: Annotated[str | None, _says("Whom the system was to notify of it.")]


class SaidOut(_Shown):
    """What the caller wrote here within a day, or whom they urged."""

    action_id: str
    action: TalkName
    text: str
    recipient_id: Annotated[str | None, _says("Who was urged.")]
    status: Annotated[ActionStatus, _says("As of an action. DONE: the system has accepted it.")]
    detail: Annotated[str | None, _says("The other system's words, `unsent` or `unconfirmed`, as of an action.")]
    at: _Moment


class CommentsOut(_Shown):
    items: Annotated[Sequence[CommentOut], _says("The newest 100, oldest first.")]
    reason: Annotated[
        Literal["not-offered", "not-now"] | None,
        _says(
            "Why none could be read: the system has no such call, or does not answer, or too many were read. A system "
            "other than Yida may accept comments all the same."
        ),
    ]
    said: Annotated[Sequence[SaidOut], _says("Without what `items` has already; oldest first.")]
    may_comment: bool
    may_urge: Annotated[Sequence[str], _says("Whom the caller may urge: those for whom it waits.")]
    people: _People


class MeOut(_Shown):
    mode: Literal["open", "token", "sso"]
    name: Annotated[str | None, _says("The token's name in the tokens file.")]
    corps: Annotated[Sequence[str], _says('Corps that the caller may read; ["*"] for all.')]
    corp_id: Annotated[str | None, _says("With single sign-on: the person's corp.")]
    user_id: Annotated[str | None, _says("With single sign-on: the person's user id.")]
    user_name: Annotated[str | None, _says("With single sign-on: the person's name, if known.")]
    operator: Annotated[bool, _says("Whether the caller may open /ops.")]
    auditor: Annotated[bool, _says("Whether the caller may see the audit trail.")]
    session: Annotated[bool, _says("Whether the person signed in here, and so may sign out.")]
    preferences: Annotated[Preferences | None, _says("With single sign-on: what the person chose.")]
    owned_apps: Annotated[Sequence[str], _says("Apps whose waiting tasks the person may see, with all their people.")]
    start_forms: Annotated[bool, _says("Whether there is a list of forms for the person, which /start shows.")]


class StartFormOut(_Shown):
    app_type: str
    app_name: Annotated[str | None, _says("Known where the apps file has a corp token.")]
    form_uuid: str
    title: str | None
    title_en: str | None
    url: Annotated[str, _says("The page at Yida where it is filled in.")]
    used_at: Annotated[str | None, _says("When the person last started it, among their latest 100 requests.", MOMENT)]


class StartFormsOut(_Shown):
    items: Sequence[StartFormOut]
    complete: Annotated[bool, _says("False if forms may be missing: an app was not read, or its list is too long.")]


class CorpsOut(_Shown):
    items: Annotated[Sequence[str], Field(examples=[["ding5d17e3add038d445"]])]


class CountedOut(_Shown):
    pending: Annotated[int, _says("Pending entries. A task that waits for several people counts for each.")]
    overdue: int
    oldest_at: Annotated[str, _says("When the oldest of them was added.", MOMENT)]


class WaitingProcessOut(CountedOut):
    app_type: str
    process_name: str | None


class WaitingPersonOut(CountedOut):
    user_id: str
    name: str | None


class WaitingOut(_Shown):
    processes: Sequence[WaitingProcessOut]
    people: Sequence[WaitingPersonOut]
    complete: Annotated[bool, _says("False if there are more processes, people or entries than are counted here.")]


class AuditEntryOut(_Shown):
    seq: Annotated[int, _says("Its number, without gaps.")]
    at: str
    corp_id: str
    actor: Annotated[
        str,
        _says("A user id, the pseudonym of an erased person, or the name of a token; empty for this machine."),
    ]
    action: str
    subject: Annotated[str, _says("What it was about, such as a corp and a user with a slash between.")]
    address: str
    session: Annotated[str, _says("First digits of the digest of the session's token.")]
    sha256: Annotated[
        str,
        _says("Hash of this entry and of the hash before. People are in it by pseudonyms, as in the log."),
    ]
    actor_name: Annotated[str | None, _says("Name of the person, if known.")]
    subject_name: Annotated[str | None, _says("Name of the person that it was about, if known.")]
    action_id: Annotated[str | None, _says("Of an action on a task: all entries about this action have it.")]
    decision: Annotated[str | None, _says("What the action is to do, such as `agree`; known for 30 days.")]
    status: Annotated[str | None, _says("What became of the action until now, as in `/actions`; known for 30 days.")]
    instance_id: Annotated[str | None, _says("The instance that it was about.")]
    task_id: str | None
    title: Annotated[str | None, _says("Title of the instance, while it exists.")]


class AuditOut(_Shown):
    items: Sequence[AuditEntryOut]


SeenForm = Annotated[
    str,
    Field(
        max_length=DIGEST_MAX,
        description="`digest` of the form as the person saw it. If its system has another one right before the action "
        "is sent, it is refused as `changed`. Without it, this is not checked; nor is it for `withdraw`.",
    ),
]


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
    seen_form: SeenForm = ""


WhyNothing = Literal["not-signed-in", "not-yours", "not-possible"]
_Detail = Annotated[
    str | None,
    _says(
        "The other system's words, or one of `not-pending`, `not-delegated`, `not-possible` (tasks of this app are "
        "decided elsewhere), `not-numeric` (DingTalk knows tasks by numbers), `ended` (the whole instance has), "
        "`changed` (since `seen_revision` or `seen_form`), `no-recipient`, `too-often` (refused five times within an "
        "hour), `unsent` (it was not sent, and is not tried again) and `unconfirmed` (it is not known whether it was "
        "carried out)."
    ),
]


_recipient = (
    "Who gets tasks that are handed over, or the id of the step to which requests are returned: null for "
    "the originator."
)


class ActionIn(BaseModel):
    model_config = ConfigDict(json_schema_extra=_add_example)

    action: ActionName
    items: list[ActedOnIn] = Field(min_length=1, max_length=100)
    remark: str = Field("", max_length=REMARK_MAX)
    recipient_id: str | None = Field(None, max_length=256, description=_recipient)


class ActionOut(_Shown):
    action_id: Annotated[str | None, _says("Null for what was refused at once, and is not stored.")]
    instance_id: str
    task_id: str | None
    action: Annotated[RecordedName, _says("`reassign`: an operator handed the task over.")]
    user_id: Annotated[str, _says("Whose task or request it is.")]
    actor_id: Annotated[str, _says("Who acted: this person, a delegate, or, for `reassign`, an operator.")]
    recipient_id: Annotated[str | None, _says(_recipient)]
    remark: str
    status: Annotated[
        ActionStatus,
        _says(
            "The first four are under way: to be sent, being sent, accepted by the other system, and unknown "
            "because it did not answer. OVERTAKEN: the task was decided in another manner meanwhile."
        ),
    ]
    detail: _Detail
    requested_at: _Moment


class ReassignIn(BaseModel):
    model_config = ConfigDict(json_schema_extra=_add_example)

    recipient_id: str = Field(min_length=1, max_length=ID_MAX, description="Who gets the tasks.")
    remark: str = Field("", max_length=REMARK_MAX)


class LeftProcessOut(_Shown):
    app_type: str
    process_name: str | None
    source: str
    pending: int
    is_possible: Annotated[bool, _says("Whether they can be handed over here.")]


class LeavingOut(_Shown):
    processes: Annotated[Sequence[LeftProcessOut], _says("The pending tasks of the person, by process.")]
    handed: Annotated[
        Mapping[str, int],
        _says("How many tasks operators handed over within a day, by the status of the latest action on each."),
    ]
    staying: Annotated[
        Mapping[str, int],
        _says(
            "How many pending tasks cannot be handed over now, by the reason: `not-possible`, `not-numeric`, `ended`, "
            "`too-often`, `under-way`, or `handed-over` if only the callback is missing."
        ),
    ]
    recorded: Annotated[int, _says("How many this request recorded.")]


class PossibleOut(_Shown):
    source: str
    app_type: Annotated[str | None, _says("Null: of all apps of the source.")]
    numeric_task_ids: Annotated[bool, _says("Nothing is possible with tasks whose `task_id` is not a number.")]
    actions: Sequence[ActionName]


class ActionsOut(_Shown):
    possible: Annotated[
        Sequence[PossibleOut],
        _says("What the caller may do with tasks of which apps. Tasks of other apps are decided elsewhere."),
    ]
    reason: Annotated[
        WhyNothing | None,
        _says(
            "Why nothing is possible: the caller did not sign in, it is another person's list, or the tasks of "
            "all apps are decided elsewhere. Null if something is."
        ),
    ]
    items: Sequence[ActionOut]


class DelegationIn(BaseModel):
    model_config = ConfigDict(json_schema_extra=_add_example)

    delegate_id: str = Field(min_length=1, max_length=256)
    app_type: str | None = Field(None, max_length=256, description="Only tasks of this app.")
    process_name: str | None = Field(None, max_length=256, description="Only tasks of processes with this name.")
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    at_yida: bool = Field(default=False, description="As an agent at Yida too: only of all tasks.")


class AtYidaOut(_Shown):
    status: Annotated[ActionStatus, _says("As of an action. DONE: Yida has it, or has removed it.")]
    detail: _Detail


class EndedAtYidaOut(AtYidaOut):
    delegate: PersonOut


class DelegationOut(_Shown):
    delegation_id: str
    delegate: PersonOut
    at_yida: Annotated[AtYidaOut | None, _says("What became of the agent at Yida; null if there is to be none.")]
    app_type: str | None
    process_name: str | None
    starts_at: _Moment
    ends_at: _Moment


class DelegationsOut(_Shown):
    items: Sequence[DelegationOut]
    may_be_at_yida: Annotated[bool, _says("Whether a delegation can be an agent at Yida too.")]
    ended_at_yida: Annotated[
        Sequence[EndedAtYidaOut], _says("Agents at Yida of delegations that were ended within a day.")
    ]


class YidaAgentOut(_Shown):
    agent: Annotated[PersonOut, _says("Who acts.")]
    principal: Annotated[PersonOut, _says("For whom.")]
    is_for_all: Annotated[bool, _says("False if it is for tasks of some forms only.")]
    starts_at: _KnownMoment
    ends_at: _KnownMoment


class YidaAgentsOut(_Shown):
    items: Sequence[YidaAgentOut]


class DelegatedItemOut(ItemOut):
    on_behalf_of: Annotated[PersonOut, _says("Whose task it is.")]


class DelegatedOut(_Shown):
    items: Sequence[DelegatedItemOut]


class FoundPersonOut(_Shown):
    corp_id: str
    user_id: str
    name: str | None
    department: str | None


class PeopleOut(_Shown):
    items: Sequence[FoundPersonOut]


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


class ProposalIn(BaseModel):
    model_config = ConfigDict(json_schema_extra=_add_example)

    decision: Literal["confirm", "discard"]
    seen_form: SeenForm = ""


class ProposalOut(_Shown):
    """A decision that an assistant prepared for the person."""

    proposal_id: str
    client: Annotated[str, _says("Name of the assistant's client.")]
    instance_id: str
    task_id: str
    title: str | None
    action: ActionName
    remark: str
    changed: Annotated[bool, _says("The request has changed since: a confirmation would be refused.")]
    proposed_at: _Moment
    expires_at: _Moment
    status: Literal["OPEN", "EXPIRED", "DISCARDED", "CONFIRMED", "REFUSED"]
    action_status: Annotated[str | None, _says("Of the decision, once it is confirmed: as in `actions`.")]
    detail: _Detail


class AssistantIn(BaseModel):
    model_config = ConfigDict(json_schema_extra=_add_example)

    client: str = Field(min_length=1, max_length=ID_MAX, examples=["claude"])
    refused: StrictBool


class AssistantOut(_Shown):
    client: str
    people: Annotated[int, _says("How many people of the corp used it within 90 days.")]
    used_at: Annotated[str, _says("When it was used, to the hour; of a refused one, when it was refused.", MOMENT)]
    refused: bool


class AssistantsOut(_Shown):
    items: Sequence[AssistantOut]
