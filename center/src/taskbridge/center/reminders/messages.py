"""Reminders and digests as people and programs read them, in two languages. Pure."""
# ruff: noqa: RUF001 - Chinese text

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from taskbridge.schemas.cloudevents import iso, optional_iso

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from taskbridge.center.reminders.waiting import Counts
    from taskbridge.center.reminders.web_push import Device

REMINDER, DIGEST = "reminder", "digest"
NEW, DECIDED = "new", "decided"
ARRIVALS = NEW, DECIDED
"""Of what has just happened: a new task, and a decision on the person's own request."""
NAMED_MAX = 20
"""People whom one message to a group names, and tasks that one message lists."""

_PUSH_TITLES, _PUSH_TITLE = 3, 120
"""Titles in one notification, and the characters of each: what is sent has 4 KiB at most."""

Language = Literal["zh", "en"]

_WORDS = {
    "zh": {
        "untitled": "无标题",
        "reminder": "{} 项待办即将到期",
        "digest": "{pending} 项待办，其中 {overdue} 项已超时",
        "due": "{:%m-%d %H:%M} 截止",
        "overdue": "已超时，{:%m-%d %H:%M} 截止",
        "timed": "{}（{}）",
        "more": "另有 {} 项",
        "more_people": "另有更多人",
        "group_reminder": "以下人员有待办即将到期：",
        "group_digest": "今日待办：",
        "person": "{}：{} 项",
        "person_overdue": "{}：{} 项，{} 项已超时",
        "link": "任务中心：",
        "push_new": "您有 {} 项新待办",
        "push_decided": "您发起的 {} 项申请已处理",
        "work_new": "您有新的待办",
        "work_decided": "您发起的申请已处理",
        "work_reminder": "您有待办即将到期",
        "work_digest": "您有待办，请及时处理",
        "open": "查看",
    },
    "en": {
        "untitled": "Untitled",
        "reminder": "Tasks that are due soon: {}",
        "digest": "Pending tasks: {pending}, overdue: {overdue}",
        "due": "due {:%d %b %H:%M}",
        "overdue": "overdue since {:%d %b %H:%M}",
        "timed": "{} ({})",
        "more": "and {} more",
        "more_people": "and more people",
        "group_reminder": "These people have tasks that are due soon:",
        "group_digest": "Pending tasks today:",
        "person": "{}: {}",
        "person_overdue": "{}: {}, overdue: {}",
        "link": "Task center: ",
        "push_new": "New tasks: {}",
        "push_decided": "Your requests that were decided: {}",
        "work_new": "You have new tasks",
        "work_decided": "Requests of yours were decided",
        "work_reminder": "Tasks of yours are due soon",
        "work_digest": "Tasks wait for you",
        "open": "Open",
    },
}


class Task(NamedTuple):
    """A pending task in a message to its person."""

    instance_id: str
    task_id: str | None
    title: str | None
    app_type: str
    process_name: str | None
    url: str | None
    due_at: int | None
    due: datetime | None
    """The same, on the clock of the calendar."""


class Line(NamedTuple):
    """A person in a message to a group."""

    user_id: str
    name: str | None
    pending: int
    overdue: int


class Message(NamedTuple):
    """To one person, or to a group."""

    message_id: str
    """The same whenever it is sent again, so that receivers can recognise it."""
    kind: str
    corp_id: str
    at: int
    user_id: str = ""
    address: str | None = None
    tasks: Sequence[Task] = ()
    counts: Counts | None = None
    """All pending tasks of the person, in a digest."""
    lines: Sequence[Line] = ()
    is_complete: bool = True
    devices: Sequence[Device] = ()


class Notice(NamedTuple):
    """For several people in one call, and so about nobody's tasks."""

    corp_id: str
    user_ids: Sequence[str]
    title: str
    text: str
    link: str
    """The words for it."""
    url: str | None


def id_of(keys: Sequence[tuple[object, ...]]) -> str:
    """Of a message about these rows."""
    return hashlib.sha256(repr(sorted(keys)).encode()).hexdigest()[:32]


def mail(message: Message, language: Language, url: str | None) -> tuple[str, str]:
    """Subject and text."""
    words = _WORDS[language]
    if message.counts is not None:
        subject = words["digest"].format(**message.counts._asdict())
    else:
        subject = words["reminder"].format(len(message.tasks))
    shown = message.tasks[:NAMED_MAX]
    lines = [line for each in shown for line in _task(each, message.at, words, url)]
    total = len(message.tasks) if message.counts is None else message.counts.pending
    if total > len(shown):
        lines.append(words["more"].format(total - len(shown)))
    return subject, "\n".join([*lines, *_link(words, url)]) + "\n"


def group_text(message: Message, language: Language, url: str | None) -> str:
    """Names and counts only: not everybody in a group may know what the tasks are about."""
    words = _WORDS[language]
    lines = [words[f"group_{message.kind}"]]
    for each in message.lines:
        name = f"{each.name or ''} @{each.user_id}".strip()
        word = "person_overdue" if each.overdue else "person"
        lines.append(words[word].format(name, each.pending, each.overdue))
    if not message.is_complete:
        lines.append(words["more_people"])
    return "\n".join([*lines, *_link(words, url)])


def push(message: Message, language: Language, *, titled: bool) -> dict[str, str]:
    """For the service worker, which shows it. ``tag``: of several with the same one, a device shows the last."""
    words, hash_ = _WORDS[language], f"#{'created' if message.kind == DECIDED else 'pending'}"
    if message.counts is not None:
        title = words["digest"].format(**message.counts._asdict())
    else:
        title = words["reminder" if message.kind == REMINDER else f"push_{message.kind}"].format(len(message.tasks))
    said = {"title": title, "body": "", "tag": f"{message.kind} {message.message_id}", "hash": hash_}
    if titled and message.counts is None:
        names = [" ".join((each.title or words["untitled"]).split())[:_PUSH_TITLE] for each in message.tasks]
        if len(names) == 1:
            # As the page shows a new task: a device that shows both shows one.
            only = message.tasks[0]
            where = quote(only.instance_id, safe="")
            said |= {"body": names[0], "tag": f"{only.instance_id} {only.task_id or ''}", "hash": f"{hash_}/{where}"}
        else:
            said["body"] = "\n".join(names[:_PUSH_TITLES])
    return said


def notice(message: Message, language: Language, url: str | None, clock: str) -> Notice:
    """``clock``: the time of day, because DingTalk delivers a text to a person once a day."""
    words = _WORDS[language]
    title = words[f"work_{message.kind}"]
    users = [each.user_id for each in message.lines]
    to = None if url is None else f"{url}/#{'created' if message.kind == DECIDED else 'pending'}"
    return Notice(message.corp_id, users, title, words["timed"].format(title, clock), words["open"], to)


def event(message: Message) -> dict[str, Any]:
    """For a program, as Standard Webhooks recommend it."""
    data: dict[str, Any] = {"corp_id": message.corp_id, "user_id": message.user_id}
    if message.counts is not None:
        data |= {"pending": message.counts.pending, "overdue": message.counts.overdue}
    data["tasks"] = [{**each._asdict(), "due_at": optional_iso(each.due_at)} for each in message.tasks]
    for each in data["tasks"]:
        del each["due"]
    return {"type": f"tasks.{message.kind}", "timestamp": iso(message.at), "data": data}


def _task(task: Task, now: int, words: dict[str, str], url: str | None) -> list[str]:
    # A title is one line of the message, also if its sender put line breaks into it.
    line = " ".join((task.title or words["untitled"]).split())
    if task.due_at is not None and task.due is not None:
        time = words["overdue" if task.due_at <= now else "due"].format(task.due)
        line = words["timed"].format(line, time)
    return [f"- {line}"] if url is None else [f"- {line}", f"  {url}/#pending/{quote(task.instance_id, safe='')}"]


def _link(words: dict[str, str], url: str | None) -> list[str]:
    return [] if url is None else ["", f"{words['link']}{url}/#pending"]
