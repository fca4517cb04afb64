"""The tables of the task center, the same in SQLite and PostgreSQL.

Keys compare by their bytes in both databases. Texts contain no U+0000, which PostgreSQL cannot store: writers replace
it by U+FFFD. Times are milliseconds since the epoch, UTC. JSON is written by us and read whole, so it is bytes.

What follows the topics, ``FOLLOWED``, can be dropped and read again. What people enter is in the other tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    ForeignKeyConstraint,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    and_,
)

from taskbridge.runtime.database import Key
from taskbridge.runtime.follow.tables import skipped
from taskbridge.schemas.events import TaskState, View
from taskbridge.schemas.views import Entry

metadata = MetaData()

VIEW_CODES = {View.CREATED: 1, View.PENDING: 2, View.HANDLED: 3, View.COPIED: 4}
CODES_BY_NAME = {view.lower(): code for view, code in VIEW_CODES.items()}
"""By the names of the API."""
WHOLE_INSTANCE = ""
"""``task_id`` of an entry about the whole instance: it comes before those about its tasks."""
EMPLOYEE_NUMBER = "employee_number"
"""In ``person_ids``: the kind of the one further id that has a field of its own."""
NEVER_DUE = 1 << 62
"""``due_at`` of a pending task whose instance has ended: nobody is reminded of it, and it is not overdue."""
QUARANTINED, DEAD_LETTER = "quarantine", "dead-letter"
"""Kinds of ``set_aside``."""
READ_MARK, PINNED, HIDDEN = "read", "pinned", "hidden"
"""Kinds of ``marks``."""
CHANGES_CHANNEL = "taskbridge_changes"
"""On which PostgreSQL notifies replicas of people whose lists changed: JSON, a list of corp and user."""

NAME_CHARACTERS = 200
"""Of what an index has of an app's and of a process' name: a row of an index of PostgreSQL has 2,704 bytes."""

read_state, read_entry = msgspec.json.Decoder(TaskState).decode, msgspec.json.Decoder(Entry).decode
"""Of ``instances.state`` and ``entries.item``."""

Seen = Callable[[str | None], None]
"""Gets the ``filled_epoch`` of the last statement of a block of ``Complete``."""
Complete = Callable[[Connection], AbstractContextManager[Seen]]
"""A block that raises Filling at its end unless all that it has read of the lists was complete: see ``filling``."""

Person = tuple[str, str]
"""Corp id and user id. Not joined as in a record's key: an id with a slash could look like another two."""


def lock_of(person: Person) -> int:
    """The advisory lock of PostgreSQL for what one person changes in several rows of their own."""
    return int.from_bytes(hashlib.sha256("/".join(person).encode()).digest()[:8], signed=True)


def _texts(*names: str, primary_key: bool = False) -> list[Column[str]]:
    """Required columns."""
    return [Column(name, Key, primary_key=primary_key, nullable=False) for name in names]


instances = Table(
    "instances",
    metadata,
    # In SQLite an alias of the row id.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("instance_id", Key, nullable=False, unique=True),
    Column("partition", Integer, nullable=False),
    Column("corp_id", Key, nullable=False),
    # The ``TaskState`` as JSON of msgspec.
    Column("state", LargeBinary, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    # ``instances.id``, and a number among those of the instance: a filling appends to this index.
    Column("instance", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    *_texts("corp_id", "user_id"),
    Column("view", SmallInteger, nullable=False),
    Column("entered_at", BigInteger, nullable=False),
    *_texts("instance_id", "task_id", "app_type", "source"),
    # At most NAME_CHARACTERS, as ``app_type``.
    Column("process_name", Text),
    # Of a pending task whose source says when it is due; NEVER_DUE if its instance has ended.
    Column("due_at", BigInteger),
    # Of an originator whom the state names by the id only: the name is looked up when the entry is read.
    Column("unnamed_originator", Key),
    # Title, process name, originator's name and serial number, folded for comparison, with line feeds between; bounded,
    # because it is in an index.
    Column("search", Text, nullable=False),
    # The ``Entry`` of ``taskbridge.schemas.views``, as JSON of msgspec.
    Column("item", LargeBinary, nullable=False),
)
entries_page = Index(
    "entries_page",
    entries.c.corp_id,
    entries.c.user_id,
    entries.c.view,
    entries.c.entered_at.desc(),
    entries.c.instance_id,
    entries.c.task_id,
    # A search reads a person's entries in the index alone, a quarter of the time of reading their rows.
    entries.c.search,
    entries.c.unnamed_originator,
    entries.c.instance,
    entries.c.number,
)

_is_pending = entries.c.view == VIEW_CODES[View.PENDING]
_PENDING_ONLY: dict[str, Any] = {"sqlite_where": _is_pending, "postgresql_where": _is_pending}
entries_waiting = Index(
    "entries_waiting",
    # With the view, so that SQLite counts in the index alone.
    *(entries.c[name] for name in ("corp_id", "user_id", "app_type", "process_name", "entered_at", "due_at", "view")),
    **_PENDING_ONLY,
)
entries_age = Index("entries_age", entries.c.entered_at, entries.c.instance, entries.c.number, **_PENDING_ONLY)
_is_due = and_(_is_pending, entries.c.due_at.is_not(None))
entries_due = Index(
    "entries_due",
    *(entries.c[name] for name in ("due_at", "instance", "number")),
    sqlite_where=_is_due,
    postgresql_where=_is_due,
)
LIST_INDEXES = (entries_page, entries_waiting, entries_age, entries_due)
"""Dropped while the lists are filled."""


def of_person(table: FromClause, person: Person) -> ColumnElement[bool]:
    """Which rows are this person's."""
    return and_(table.c.corp_id == person[0], table.c.user_id == person[1])


def of_instance(instance_id: ColumnElement[str] | str) -> ColumnElement[bool]:
    """Joins entries by the key of their instance."""
    return and_(instances.c.instance_id == instance_id, entries.c.instance == instances.c.id)


def among_its_entries(**same: Any) -> ColumnElement[bool]:
    """Which of an instance's few entries have these values.

    Expressions, by which no index is entered: without statistics SQLite would look among all entries of the person, and
    PostgreSQL, with them, sometimes does.
    """
    return and_(
        *(
            (column.concat("") if isinstance((column := entries.c[name]).type, String) else column + 0) == value
            for name, value in same.items()
        )
    )


change_counters = Table(
    "change_counters",
    metadata,
    *_texts("corp_id", "user_id", primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
)
"""Numbers each person's changes. The row is locked until its transaction ends, so numbers become visible in order."""

changes = Table(
    "changes",
    metadata,
    *_texts("corp_id", "user_id", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False, index=True),
    Column("instance_id", Key, nullable=False),
    # As in an entry.
    Column("unnamed_originator", Key),
    # A ``TaskNotification`` as the API shows it, but for that name.
    Column("data", LargeBinary, nullable=False),
)

events = Table(
    "events",
    metadata,
    *_texts("instance_id", "event_id", primary_key=True),
    *_texts("corp_id", "action"),
    Column("occurred_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    # The ``TaskEvent`` without ``raw_parameters``, as JSON.
    Column("data", LargeBinary, nullable=False),
    Index("events_flow", "received_at", "action"),
)

people = Table(
    "people",
    metadata,
    *_texts("corp_id", "user_id", primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("name", Text),
    Column("department", Text),
    # User id, name and department, folded for comparison, with line feeds between.
    Column("search", Text, nullable=False),
)

person_ids = Table(
    "person_ids",
    metadata,
    *_texts("corp_id", "kind", "value", "user_id", primary_key=True),
    Index("person_ids_of_user", "corp_id", "user_id"),
    ForeignKeyConstraint(["corp_id", "user_id"], ["people.corp_id", "people.user_id"], ondelete="CASCADE"),
)
"""Further ids of people, by which they may sign in: EMPLOYEE_NUMBER, and the names of ``Person.other_ids``."""

forms = Table(
    "forms",
    metadata,
    *_texts("corp_id", "form_uuid", primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("title", Text),
    Column("labels", LargeBinary, nullable=False),
)

set_aside = Table(
    "set_aside",
    metadata,
    # QUARANTINED or DEAD_LETTER.
    *_texts("kind", "entry_id", primary_key=True),
    Column("at", BigInteger, nullable=False),
    # Empty in the record of a replay whose entry has not been read yet.
    Column("reason", Key, nullable=False),
    # What an operator may search for: the key of a dead letter, the text of a rejected request.
    Column("search", Text, nullable=False),
    # As the operator's page shows it, as JSON.
    Column("summary", LargeBinary, nullable=False),
    Column("replayed_at", Text),
    Index("set_aside_latest", "kind", "at"),
    Index("set_aside_counts", "kind", "reason", "replayed_at"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_sha256", Key, primary_key=True),
    *_texts("corp_id", "user_id"),
    # By groups at the identity provider, when they signed in: with spaces between.
    Column("roles", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Of the latest request, to the minute.
    Column("used_at", BigInteger, nullable=False),
    Index("sessions_of_person", "corp_id", "user_id"),
)
"""Of people who signed in: entered here, so ``--rebuild`` keeps them."""

push_devices = Table(
    "push_devices",
    metadata,
    Column("token_sha256", Key, primary_key=True),
    *_texts("corp_id", "user_id"),
    # What the browser says of its subscription. Who knows the address can send to it, but nothing that it can read.
    Column("endpoint_sha256", Key, nullable=False, unique=True),
    Column("endpoint", Text, nullable=False),
    *_texts("p256dh", "auth"),
    Column("at", BigInteger, nullable=False),
    Index("push_devices_of_person", "corp_id", "user_id"),
    ForeignKeyConstraint(["token_sha256"], ["sessions.token_sha256"], ondelete="CASCADE"),
)
"""Of sessions, one each: see ``reminders.devices``."""

sign_ins = Table(
    "sign_ins",
    metadata,
    Column("state_sha256", Key, primary_key=True),
    # Digest of the cookie of the browser that began it.
    *_texts("browser_sha256", "nonce", "code_verifier"),
    Column("return_to", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)
"""Under way at the identity provider: each may end once."""

marks = Table(
    "marks",
    metadata,
    *_texts("corp_id", "user_id", primary_key=True),
    Column("view", SmallInteger, primary_key=True, autoincrement=False),
    # READ_MARK, PINNED or HIDDEN.
    *_texts("kind", "instance_id", "task_id", primary_key=True),
    # READ_MARK: the entry's ``updated_at`` that was read. PINNED: when. HIDDEN: until when.
    Column("value", BigInteger, nullable=False),
)
"""What people mark in their lists."""

preferences = Table(
    "preferences",
    metadata,
    *_texts("corp_id", "user_id", primary_key=True),
    # What ``PUT /v1/me/preferences`` was given, as JSON.
    Column("data", LargeBinary, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    # Without gaps.
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    # Empty for a caller without a corp.
    Column("corp_id", Key, nullable=False),
    # A person's pseudonym, the name of a token, or empty for anybody on this machine.
    *_texts("actor", "action"),
    # What it was about, such as the id of an instance, or a person's pseudonym.
    Column("subject", Text, nullable=False),
    Column("address", Key, nullable=False),
    # The first digits of the digest of the session's token, or empty.
    Column("session", Key, nullable=False),
    # Of this row and the hash of the row before.
    Column("sha256", Key, nullable=False),
    Index("audit_of_actor", "actor", "at", "seq"),
    Index("audit_of_subject", "subject", "at", "seq"),
    Index("audit_of_action", "action", "at", "seq"),
    Index("audit_at", "at", "seq"),
)
"""Rows are added only: see ``access.audit``."""

actions = Table(
    "actions",
    metadata,
    Column("action_id", Key, primary_key=True),
    Column("corp_id", Key, nullable=False),
    # Whose task or request it is, and who acts: the same person, or a delegate.
    *_texts("user_id", "actor_id", "instance_id"),
    # WHOLE_INSTANCE for a withdrawal.
    *_texts("task_id", "source", "app_type", "action"),
    # Who gets a task that is handed over; empty for other actions.
    Column("recipient_id", Key, nullable=False),
    Column("remark", Text, nullable=False),
    Column("status", Key, nullable=False),
    # In words of the other system, or empty.
    Column("detail", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    # When it is looked at next; null once it has ended.
    Column("due_at", BigInteger, index=True),
    # The digest of the form that the person saw, or empty.
    Column("seen_form", Key, nullable=False, server_default=""),
    Index("actions_of_person", "corp_id", "user_id", "requested_at"),
    Index("actions_of_actor", "corp_id", "actor_id", "requested_at"),
)
"""What people decided here, for the systems that the tasks are of."""
Index(
    "actions_under_way",
    *(actions.c[each] for each in ("corp_id", "user_id", "instance_id", "task_id")),
    unique=True,
    sqlite_where=actions.c.due_at.is_not(None),
    postgresql_where=actions.c.due_at.is_not(None),
)

pseudonyms = Table(
    "pseudonyms",
    metadata,
    Column("pseudonym", Key, primary_key=True),
    *_texts("corp_id", "user_id"),
    Index("pseudonyms_of_person", "corp_id", "user_id", unique=True),
)
"""Who people in the audit trail are: the one thing about them there that can be erased."""

delegations = Table(
    "delegations",
    metadata,
    Column("delegation_id", Key, primary_key=True),
    *_texts("corp_id", "user_id", "delegate_id"),
    # Empty: all.
    Column("app_type", Key, nullable=False),
    Column("process_name", Text, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Index("delegations_of_person", "corp_id", "user_id"),
    Index("delegations_to_person", "corp_id", "delegate_id", "ends_at"),
)

reminders = Table(
    "reminders",
    metadata,
    Column("corp_id", Key, primary_key=True),
    # Empty for a group's digest, as are the ids of any digest.
    *_texts("user_id", "instance_id", "task_id", "kind", primary_key=True),
    # Of the task; of a digest, the time of day at which it is sent.
    Column("due_at", BigInteger, primary_key=True, autoincrement=False, index=True),
    Column("channel", Key, primary_key=True),
    Column("attempts", Integer, nullable=False),
    # Nobody may send it before: it failed, or a replica is about to send it.
    Column("retry_at", BigInteger, nullable=False),
    # When it was sent, or given up.
    Column("done_at", BigInteger),
    # Why it was not sent the last time.
    Column("problem", Text),
)
reminders_open = Index(
    "reminders_open",
    *(reminders.c[name] for name in ("channel", "corp_id", "user_id", "retry_at")),
    sqlite_where=reminders.c.done_at.is_(None),
    postgresql_where=reminders.c.done_at.is_(None),
)
"""Messages to people, each once: see ``reminders.reminding``."""

replicas = Table(
    "replicas",
    metadata,
    Column("replica", Key, primary_key=True),
    Column("at", BigInteger, nullable=False),
    # What the operator's page shows of it, as JSON.
    Column("share", LargeBinary, nullable=False),
)

day_calls = Table(
    "day_calls",
    metadata,
    # What a system's calls were made for, and the day that the system counts.
    *_texts("corp_id", "purpose", "day", primary_key=True),
    Column("calls", Integer, nullable=False),
)
"""Calls of other systems, by all replicas: see ``actions.day_calls``."""

start_lists = Table(
    "start_lists",
    metadata,
    # With its system before it; of the names of all apps of a system: without an app.
    *_texts("corp_id", "app_type", primary_key=True),
    # When it is read next.
    Column("due_at", BigInteger, nullable=False),
    # As JSON; null until it was read.
    Column("data", LargeBinary),
)
"""Forms that people may start, as a system listed them: see ``api.start``."""

assistants = Table(
    "assistants",
    metadata,
    # Of a person and a client; without a client, of a sign-out everywhere, by the hash of the person; without a person,
    # of a refused client.
    *_texts("corp_id", "user_id", "client", primary_key=True),
    Column("used_at", BigInteger, nullable=False),
    # Access tokens that were issued earlier are refused.
    Column("refused_before", BigInteger, nullable=False),
    Index("assistants_of_corp", "corp_id", "client", "used_at"),
)
"""Which clients people use, and which tokens are refused: see ``assistants.clients``."""

proposals = Table(
    "proposals",
    metadata,
    Column("proposal_id", Key, primary_key=True),
    *_texts("corp_id", "user_id", "client", "instance_id", "task_id", "action"),
    Column("remark", Text, nullable=False),
    # Of the instance, as the assistant saw it.
    Column("revision", Integer, nullable=False),
    Column("proposed_at", BigInteger, nullable=False, index=True),
    Column("expires_at", BigInteger, nullable=False),
    # Of the person: ``confirm`` or ``discard``; empty so far.
    Column("decision", Key, nullable=False),
    # Of ``actions``, once confirmed; empty if it was refused, with the reason.
    *_texts("action_id", "detail"),
    Index("proposals_of_person", "corp_id", "user_id", "proposed_at"),
)
"""Decisions that assistants prepared for people: see ``assistants.proposals``."""

FOLLOWED = (instances, entries, changes, change_counters, events, people, person_ids, forms, set_aside, skipped)
"""What ``--rebuild`` drops and reads again."""

PERSONAL = (
    assistants.c.user_id,
    push_devices.c.user_id,
    sessions.c.user_id,
    pseudonyms.c.user_id,
    actions.c.user_id,
    actions.c.actor_id,
    actions.c.recipient_id,
    proposals.c.user_id,
    delegations.c.user_id,
    delegations.c.delegate_id,
    marks.c.user_id,
    preferences.c.user_id,
    reminders.c.user_id,
)
"""Columns with the ids of people whom a row is about, next to their ``corp_id``, in what people entered and what says
who they are. Erasing a person deletes these rows."""
