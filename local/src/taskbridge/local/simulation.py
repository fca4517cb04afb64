"""Simulate the company at work: its events as signed callbacks, posted at a steady rate, once each, as Yida does.

The same seed gives the same events. ``Simulation`` does no I/O and reads no clock: the caller passes the time.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from taskbridge.cli.callbacks import Sender
from taskbridge.cli.topic_update import FORMS_TARGET, PEOPLE_TARGET, fill
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.organisation import User
from taskbridge.edge.decision.callbacks import event_of, locate
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.local.company import CORP, DEPARTMENT_FIELD, EMPLOYEES, FORMS, PROCESSES, VISITORS
from taskbridge.local.fake_dingtalk import Company, FakeDingTalk, served
from taskbridge.runtime.clock import SystemClock
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import Action, PersonRecord, form_key, notification_key

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.terminal import Progress
    from taskbridge.local.company import Approval, Employee, Process
    from taskbridge.schemas.events import TaskEvent

_OPEN_INSTANCES = 30

_REFUSED, _CANCELLED, _DELETED, _TRANSFERRED = 0.08, 0.05, 0.02, 0.1
_AUTOMATIC, _DELEGATED = 0.15, 0.1
_ENCODINGS = ("form", "json", "multipart", "query")
_REMEMBERED = 50
FIRST_TASK = 10**10
"""DingTalk's API knows tasks by numbers."""
DROPPED = "dropped"
"""The kind of a callback that is never posted, though its event happened."""
_HELD_BACK_FOR = 5
_REPORT_EVERY_S = 5.0
_OUTCOMES = {"kafka": "{} stored in Kafka", "spool": "{} stored in the spool", "unanswered": "{} unanswered"}


@dataclass(frozen=True, slots=True)
class SimulatedApp:
    app_type: str
    corp_id: str
    system_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Posting:
    """One callback to sign and post, unless it is DROPPED. ``kind`` says how it is delivered."""

    app: SimulatedApp
    action: str
    encoding: Any
    parameters: dict[str, str]
    kind: str = "callback"


class Simulation:
    def __init__(
        self,
        apps: Sequence[SimulatedApp],
        *,
        seed: int,
        chaos: float = 0.0,
        drop: float = 0.0,
        happened: Callable[[Posting], None] | None = None,
    ) -> None:
        """``chaos`` is the share of callbacks that are posted twice or out of order.

        ``drop`` is the share of callbacks never posted; ``happened`` is called for all, also for these.
        """
        self._apps = apps
        self._drop = drop
        self._lost = random.Random(f"dropped {seed}")  # noqa: S311 - so that the same callbacks are dropped
        self._happened = happened
        self._chance = random.Random(seed)  # noqa: S311 - so that events are reproducible
        self._deciding = random.Random(f"decided {seed}")  # noqa: S311 - likewise
        self._chaos = chaos
        self._now_ms = 0
        self._open: list[Iterator[Posting]] = []
        self._held_back: deque[tuple[int, Posting]] = deque()
        self._recent: deque[Posting] = deque(maxlen=_REMEMBERED)
        self._given = 0
        self._decided: dict[str, bool] = {}
        self._callbacks: deque[Posting] = deque()
        self.started: Counter[str] = Counter()

    @property
    def open_instances(self) -> int:
        return len(self._open)

    def next(self, now_ms: int) -> Posting:
        self._given += 1
        if self._callbacks:
            return self._callbacks.popleft()
        if self._held_back and self._held_back[0][0] <= self._given:
            return self._held_back.popleft()[1]
        self._now_ms = now_ms
        posting = self._happen()
        is_chaotic = self._chance.random() < self._chaos
        if self._lost.random() < self._drop:
            return replace(posting, kind=DROPPED)
        if is_chaotic:
            if self._recent and self._chance.random() < 0.5:  # noqa: PLR2004 - as often as the other
                self._held_back.append((self._given + 1, posting))
                again = self._chance.choice(self._recent)
                return Posting(again.app, again.action, again.encoding, again.parameters, "repeated")
            due = self._given + self._chance.randint(1, _HELD_BACK_FOR)
            if not self._held_back or self._held_back[-1][0] <= due:
                late = Posting(posting.app, posting.action, posting.encoding, posting.parameters, "out of order")
                self._held_back.append((due, late))
                posting = self._happen()
        self._recent.append(posting)
        return posting

    def decided(self, event: TaskEvent) -> None:
        """Somebody acted at DingTalk, in any thread: its callback comes next. Only an approval goes on by itself."""
        app = next(each for each in self._apps if each.app_type == event.app_type)
        if event.task_id is not None and event.action is not Action.CREATED:
            self._decided[event.task_id] = event.outcome == wire.AGREE
        self._callbacks.append(Posting(app, *_callback_of(event)))

    def _happen(self) -> Posting:
        while True:
            if not self._open or self._chance.random() > len(self._open) / (_OPEN_INSTANCES * 1.2):
                self._open.append(self._life())
                return next(self._open[-1])
            at = self._chance.randrange(len(self._open))
            posting = next(self._open[at], None)
            if posting is not None:
                return posting
            del self._open[at]

    def _life(self) -> Iterator[Posting]:
        chance, process = self._chance, self._chance.choice(PROCESSES)
        # Processes of a kind belong to one app, as they do in a company.
        instance = _Instance(self._apps[PROCESSES.index(process) % len(self._apps)], process, chance)
        self.started[process.name] += 1
        yield self._post(instance, "create", instance.filed(self._now_ms))
        for number, approval in enumerate(process.steps, 1):
            assignees = instance.assignees(approval)
            task_id = str(FIRST_TASK + chance.getrandbits(32))
            step = {"showName": approval.name, "activityId": f"{process.code}-{number}"}
            described = instance.described(self._now_ms, task_id=task_id, assignees=assignees, step=step)
            yield self._post(instance, "create", described)
            if chance.random() < _TRANSFERRED:
                # Described again with one more assignee: the earlier ones still see it.
                assignees = [*assignees, chance.choice(EMPLOYEES)]
                again = instance.described(self._now_ms, task_id=task_id, assignees=assignees[-1:], step=step)
                yield self._post(instance, "create", again)
            agrees = self._decided.get(task_id)
            if agrees is False:
                return
            if agrees is None and chance.random() < _CANCELLED:
                yield self._post(instance, "cancel", instance.decided(task_id, instance.applicant) | step)
                yield self._post(instance, "create", instance.ended(self._now_ms, wire.TERMINATED, ""))
                break
            if agrees is None:
                decided = instance.decided(task_id, chance.choice(assignees)) | step | self._decider()
                yield self._post(instance, "complete", decided)
            if agrees is None and chance.random() < _REFUSED:
                yield self._post(instance, "create", instance.ended(self._now_ms, wire.COMPLETED, "disagree"))
                break
            if number == len(process.steps):
                yield self._post(instance, "create", instance.ended(self._now_ms, wire.COMPLETED, "agree"))
                if process.copied_to is not None:
                    copied = chance.sample(_of(process.copied_to), k=chance.randint(1, 2))
                    yield self._post(instance, "cc", instance.described(self._now_ms, copied=copied))
        if chance.random() < _DELETED:
            yield self._post(instance, "delete", instance.named())

    def _decider(self) -> dict[str, str]:
        """As in DingTalk's operation records; no callback is documented to have it."""
        drawn = self._deciding.random()
        if drawn < _AUTOMATIC:
            return {"taskExecuteType": self._deciding.choice(("AUTO", "FILTERED"))}
        agents = {"operatorAgentIdList": self._deciding.choice(EMPLOYEES).user_id}
        return {"taskExecuteType": "NORMAL", **(agents if drawn < _AUTOMATIC + _DELEGATED else {})}

    def _post(self, instance: _Instance, action: str, parameters: dict[str, str]) -> Posting:
        stamped = {**parameters, "dateTime": str(self._now_ms)}
        posting = Posting(instance.app, action, self._chance.choice(_ENCODINGS), stamped)
        if self._happened is not None:
            self._happened(posting)
        return posting


class _Instance:
    def __init__(self, app: SimulatedApp, process: Process, chance: random.Random) -> None:
        self.app = app
        self._process = process
        self._chance = chance
        self.applicant: Employee = chance.choice(EMPLOYEES)
        self._id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        self._serial_no = f"{process.code}-{chance.randrange(10**6):06d}"
        self._form: dict[str, str | None] = {name: chance.choice(values) for name, values in process.form.items()}
        self._title = process.title.format(name=self.applicant.name, **self._form)
        self._state: dict[str, Any] = {"processInstanceStatus": wire.RUNNING}
        self._filed_ms = 0

    def assignees(self, approval: Approval) -> list[Employee]:
        if approval.department is None:
            return [next(each for each in EMPLOYEES if each.department == self.applicant.department and each.is_head)]
        return self._chance.sample(_of(approval.department), k=approval.assignees)

    def filed(self, now_ms: int) -> dict[str, str]:
        self._filed_ms = now_ms
        return self.described(now_ms)

    def ended(self, now_ms: int, status: str, result: str) -> dict[str, str]:
        """The ``task`` of a create that describes the end of the instance. No result: it was withdrawn."""
        self._state = {"processInstanceStatus": status, "processApprovedResult": result, "finishTime": now_ms}
        return self.described(self._filed_ms)

    def described(
        self,
        created_ms: int,
        *,
        task_id: str | None = None,
        assignees: Sequence[Employee] = (),
        step: Mapping[str, str] | None = None,
        copied: Sequence[Employee] = (),
    ) -> dict[str, str]:
        task: dict[str, Any] = {
            "appType": self.app.app_type,
            "formInstanceId": self._id,
            "formUuid": self._process.form_uuid,
            "processCode": f"TPROC--{self._process.code}",
            "processName": self._process.name,
            "serialNo": self._serial_no,
            "title": self._title,
            "originatorId": self.applicant.user_id,
            "originatorDisplayName": self.applicant.name,
            "originatorCorpId": self.app.corp_id,
            "createTime": created_ms,
            **self._state,
            "dataMap": {**self._form, DEPARTMENT_FIELD: self.applicant.department},
            "url": f"https://yida.example/{self.app.app_type}/processDetail?procInsId={self._id}",
        }
        if task_id is not None:
            ids = [each.user_id for each in assignees]
            task |= {"taskId": task_id, "actionerId": ids[0] if len(ids) == 1 else ids, **(step or {})}
        if copied:
            task["actionerIds"] = [each.user_id for each in copied]
        return {"task": json.dumps(task, ensure_ascii=False)}

    def decided(self, task_id: str, actor: Employee) -> dict[str, str]:
        return {**self.named(), "taskId": task_id, "actualWorkId": actor.user_id}

    def named(self) -> dict[str, str]:
        return {"appType": self.app.app_type, "corpId": self.app.corp_id, "formInstId": self._id}


def _callback_of(event: TaskEvent) -> tuple[str, str, dict[str, str]]:
    """The action, encoding and parameters of the callback of an event at the fake DingTalk."""
    stamp = {"dateTime": str(event.occurred_at)}
    named = {"appType": event.app_type, "corpId": event.corp_id}
    if event.action is not Action.CREATED:
        action = "complete" if event.action is Action.COMPLETED else "cancel"
        of_task = {"formInstId": event.instance_id, "taskId": event.task_id or "", "actualWorkId": event.actor_id or ""}
        return action, "json", {**named, **of_task, **stamp}
    task: dict[str, Any] = {**named, "formInstanceId": event.instance_id}
    if event.task_id is not None:
        task |= {"taskId": event.task_id, "actionerId": list(event.recipient_ids)}
    if event.instance_status is not None:
        task |= {"processInstanceStatus": event.instance_status, "finishTime": event.occurred_at}
    return "create", "json", {"task": json.dumps(task), **stamp}


def _of(department: str) -> list[Employee]:
    return [each for each in EMPLOYEES if each.department == department]


@dataclass(slots=True)
class Tally:
    posted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    actions: Counter[str] = field(default_factory=Counter[str])
    kinds: Counter[str] = field(default_factory=Counter[str])
    problem: str | None = None
    seconds: float = 0.0

    @property
    def accepted(self) -> int:
        return self.outcomes["kafka"] + self.outcomes["spool"]

    @property
    def dropped(self) -> int:
        return self.kinds[DROPPED]

    @property
    def all_outcomes(self) -> dict[str, int]:
        unanswered = self.posted - self.outcomes.total()
        return {**self.outcomes, "unanswered": unanswered} if unanswered else dict(self.outcomes)

    def line(self) -> str:
        counts = sorted(self.all_outcomes.items())
        stored = ", ".join(_OUTCOMES.get(name, f"{{}} answered {name}").format(count) for name, count in counts)
        if [name for name, _ in counts] == ["kafka"]:
            stored = "all stored in Kafka"
        per_second = self.posted / self.seconds if self.seconds else 0.0
        dropped = f"; {self.dropped} dropped, not posted" if self.dropped else ""
        sent = f"{self.posted} sent in {self.seconds:.0f} s ({per_second:.1f} per second)"
        return f"{sent}, {stored or 'none stored'}{dropped}"

    def as_json(self) -> dict[str, Any]:
        return {
            "posted": self.posted,
            "accepted": self.accepted,
            "dropped": self.dropped,
            "seconds": round(self.seconds, 1),
            "outcomes": self.all_outcomes,
            "actions": dict(self.actions),
            "kinds": dict(self.kinds),
        }


def apps_of(credentials: Path, app_types: Collection[str] = ()) -> list[SimulatedApp]:
    """The apps of a credentials file that post, each with its newest token.

    Raises ConfigurationError if the file cannot be read, or lacks a requested app.
    """
    current = CredentialsFile(credentials).current
    found = [
        SimulatedApp(app_type, app.corp_id or CORP, app.tokens[0].secret.get_secret_value())
        for app_type in dict.fromkeys(each.app_type for each in current.tokens)
        if not app_types or app_type in app_types
        for app in current.apps(app_type)[:1]
    ]
    missing = set(app_types) - {each.app_type for each in found}
    if missing or not found:
        raise ConfigurationError(f"{credentials} has no app {', '.join(sorted(missing)) or 'at all'}")
    return found


def page_of(center_url: str, corp_id: str, user_id: str) -> str:
    return f"{center_url}/?{urlencode({'corp_id': corp_id, 'user_id': user_id})}"


def introduce(connection: Connection, corps: Collection[str], progress: Progress) -> None:
    """Import the names of the company's people and the labels of its forms in these corps. Safe to repeat.

    Raises OperatorError if Kafka or the registry does not answer, or denies access.
    """
    people = [PersonRecord(each.user_id, each.name, each.department) for each in EMPLOYEES]
    named = {notification_key(corp, each.user_id): each for corp in corps for each in people}
    fill(connection, PEOPLE_TARGET, named, progress)
    labelled = {form_key(corp, each.form_uuid): each for corp in corps for each in (VISITORS, *FORMS)}
    fill(connection, FORMS_TARGET, labelled, progress)


def simulate(
    url: str,
    simulation: Simulation,
    *,
    tally: Tally,
    rate: float,
    stop: threading.Event,
    progress: Progress,
    count: int | None = None,
    seconds: float | None = None,
) -> None:
    """Post until ``stop``, ``count`` or ``seconds``. One connection, one callback at a time.

    Raises OperatorError if the first callback is rejected. Later rejections are only counted, as Yida continues too.
    """
    reported = started = time.monotonic()
    with Sender(url) as sender:
        while not stop.is_set() and (count is None or tally.posted < count):
            tally.seconds = time.monotonic() - started
            if seconds is not None and tally.seconds >= seconds:
                break
            _post(sender, simulation, tally)
            tally.seconds = time.monotonic() - started
            if tally.posted == 1 and not tally.accepted:
                raise OperatorError(str(tally.problem))
            if time.monotonic() - reported >= _REPORT_EVERY_S:
                reported = time.monotonic()
                progress(f"{tally.line()}; {simulation.open_instances} requests open")
            # Relative to the start, so that slow responses do not lower the rate.
            stop.wait(max(0.0, started + tally.posted / rate - time.monotonic()))


def _post(sender: Sender, simulation: Simulation, tally: Tally) -> None:
    posting = simulation.next(time.time_ns() // 1_000_000)
    tally.kinds[posting.kind] += 1
    if posting.kind == DROPPED:
        return
    tally.posted += 1
    tally.actions[posting.action] += 1
    try:
        answer = sender.post(
            posting.action, posting.parameters, system_token=posting.app.system_token, encoding=posting.encoding
        )
    except OperatorError as error:
        tally.problem = str(error)
        return
    if answer.accepted:
        tally.outcomes[str(answer.body["durability"])] += 1
    else:
        tally.outcomes[str(answer.status)] += 1
        tally.problem = (
            f"the edge rejected '{posting.action}' of {posting.app.app_type} with {answer.status}: {answer.body}"
        )


def event_of_posting(posting: Posting) -> TaskEvent:
    received_at = int(posting.parameters["dateTime"])
    return event_of(locate(posting.action, posting.parameters), posting.parameters, received_at=received_at)


class SimulatedDingTalk:
    """A fake DingTalk with all events of the simulated company, also of dropped callbacks.

    What people decide there happens in the company, whose simulation posts the callbacks: see ``Simulation.decided``.
    """

    def __init__(self, apps: Sequence[SimulatedApp]) -> None:
        self.company = Company()
        tokens = {each.app_type: each.system_token for each in apps}
        self.fake = FakeDingTalk(self.company, SystemClock(), system_tokens=tokens)
        self.fake.organisation.people = {each.user_id: User(each.user_id, each.name) for each in EMPLOYEES}
        self.fake.organisation.labels = {each.form_uuid: dict(each.labels) for each in (VISITORS, *FORMS)}

    def happened(self, posting: Posting) -> None:
        self.company.happened(event_of_posting(posting))

    def served(self, port: int) -> AbstractContextManager[str]:
        return served(self.fake.app, port=port)
