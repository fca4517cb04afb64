"""The events of the simulated company, as callbacks in order: the same seed gives the same events.

Does no I/O and reads no clock: the caller passes the time.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from taskbridge.cli.demo.company import DEPARTMENT_FIELD, EMPLOYEES, PROCESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taskbridge.cli.demo.company import Employee, Process
    from taskbridge.cli.demo.company import Step as Approval

_OPEN_INSTANCES = 30
"""The approximate number of open instances: enough for tasks in each person's task center."""

_REFUSED, _CANCELLED, _DELETED, _TRANSFERRED = 0.08, 0.05, 0.02, 0.1
_RUNNING, _COMPLETED, _TERMINATED = "RUNNING", "COMPLETED", "TERMINATED"
_ENCODINGS = ("form", "json", "multipart", "query")
_REMEMBERED = 50
DROPPED = "dropped"
"""The kind of a callback that is never posted, though its event happened."""
_HELD_BACK_FOR = 5


@dataclass(frozen=True, slots=True)
class SimulatedApp:
    """An app of the credentials file that posts."""

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
    """Generates one callback at a time, endlessly."""

    def __init__(
        self,
        apps: Sequence[SimulatedApp],
        *,
        seed: int,
        chaos: float = 0.0,
        drop: float = 0.0,
        happened: Callable[[Posting], None] = lambda _: None,
    ) -> None:
        """``chaos`` is the share of callbacks that are posted twice or out of order.

        ``drop`` is the share of callbacks never posted; ``happened`` is called for all, also for these.
        """
        self._apps = apps
        self._drop = drop
        self._lost = random.Random(f"dropped {seed}")  # noqa: S311 - so that the same callbacks are dropped
        self._happened = happened
        self._chance = random.Random(seed)  # noqa: S311 - so that events are reproducible
        self._chaos = chaos
        self._now_ms = 0
        self._open: list[Iterator[Posting]] = []
        self._held_back: deque[tuple[int, Posting]] = deque()
        self._recent: deque[Posting] = deque(maxlen=_REMEMBERED)
        self._given = 0
        self.started: Counter[str] = Counter()
        """Instances by the name of their process."""

    @property
    def under_way(self) -> int:
        return len(self._open)

    def next(self, now_ms: int) -> Posting:
        """The next callback. A delayed one has the time at which it happened."""
        self._given += 1
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

    def _happen(self) -> Posting:
        """A new instance, or the next event of an open one."""
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
        """One instance, from filing to end."""
        chance, process = self._chance, self._chance.choice(PROCESSES)
        # Processes of a kind belong to one app, as they do in a company.
        instance = _Instance(self._apps[PROCESSES.index(process) % len(self._apps)], process, chance)
        self.started[process.name] += 1
        yield self._post(instance, "create", instance.filed(self._now_ms))
        for number, approval in enumerate(process.steps, 1):
            assignees = instance.assignees(approval)
            task_id = f"TASK-{chance.getrandbits(32):08X}"
            yield self._post(instance, "create", instance.described(self._now_ms, task_id=task_id, assignees=assignees))
            if chance.random() < _TRANSFERRED:
                # Described again with one more assignee: the earlier ones still see it.
                assignees = [*assignees, chance.choice(EMPLOYEES)]
                again = instance.described(self._now_ms, task_id=task_id, assignees=assignees[-1:])
                yield self._post(instance, "create", again)
            if chance.random() < _CANCELLED:
                yield self._post(instance, "cancel", instance.decided(task_id, instance.applicant))
                yield self._post(instance, "create", instance.ended(self._now_ms, _TERMINATED, ""))
                break
            yield self._post(instance, "complete", instance.decided(task_id, chance.choice(assignees)))
            if chance.random() < _REFUSED:
                yield self._post(instance, "create", instance.ended(self._now_ms, _COMPLETED, "disagree"))
                break
            if number == len(process.steps):
                yield self._post(instance, "create", instance.ended(self._now_ms, _COMPLETED, "agree"))
                if process.copied_to is not None:
                    copied = chance.sample(_of(process.copied_to), k=chance.randint(1, 2))
                    yield self._post(instance, "cc", instance.described(self._now_ms, copied=copied))
        if chance.random() < _DELETED:
            yield self._post(instance, "delete", instance.named())

    def _post(self, instance: _Instance, action: str, parameters: dict[str, str]) -> Posting:
        stamped = {**parameters, "dateTime": str(self._now_ms)}
        posting = Posting(instance.app, action, self._chance.choice(_ENCODINGS), stamped)
        self._happened(posting)
        return posting


class _Instance:
    """One filed form. The keys are those of Yida's callbacks."""

    def __init__(self, app: SimulatedApp, process: Process, chance: random.Random) -> None:
        self.app = app
        self._process = process
        self._chance = chance
        self.applicant: Employee = chance.choice(EMPLOYEES)
        self._id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        self._serial_no = f"{process.code}-{chance.randrange(10**6):06d}"
        self._form: dict[str, str | None] = {name: chance.choice(values) for name, values in process.form.items()}
        self._title = process.title.format(name=self.applicant.name, **self._form)
        self._state: dict[str, Any] = {"processInstanceStatus": _RUNNING}
        self._filed_ms = 0

    def assignees(self, approval: Approval) -> list[Employee]:
        if approval.department is None:
            return [next(each for each in EMPLOYEES if each.department == self.applicant.department and each.is_head)]
        return self._chance.sample(_of(approval.department), k=approval.assignees)

    def filed(self, now_ms: int) -> dict[str, str]:
        """The ``task`` of its first create."""
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
        copied: Sequence[Employee] = (),
    ) -> dict[str, str]:
        """The ``task`` of a create or a cc."""
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
            task |= {"taskId": task_id, "actionerId": ids[0] if len(ids) == 1 else ids}
        if copied:
            task["actionerIds"] = [each.user_id for each in copied]
        return {"task": json.dumps(task, ensure_ascii=False)}

    def decided(self, task_id: str, actor: Employee) -> dict[str, str]:
        return {**self.named(), "taskId": task_id, "actualWorkId": actor.user_id}

    def named(self) -> dict[str, str]:
        return {"appType": self.app.app_type, "corpId": self.app.corp_id, "formInstId": self._id}


def _of(department: str) -> list[Employee]:
    return [each for each in EMPLOYEES if each.department == department]
