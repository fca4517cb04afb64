"""The reference job's input: the lives of process instances as task events, the same at every run.

Each instance has ten events: its own create, the creates of three approval steps, their three completes, a cc, the
cancel of a step whose create never came, and a second create of the instance. In some instances a delete stands in
place of the cancel, a repeat in place of the second create, or two neighbours have changed places. An event is some
900 bytes of Avro, and the fold makes some one and three quarters notifications of it.

All instances are merged at random, each keeping its own order. So all of them live from the first moments to the last:
the hard case for caches of recent instances, and for engines that profit when one instance occurs often in a
short time.
"""

from __future__ import annotations

import json
import random
import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any

from taskbridge.schemas.events import Action, Person, TaskEvent, event_id_for

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS_PER_INSTANCE = 10

CORP_ID = "ding5d17e3add038d44535c2f4657eb6378f"
APP_TYPE = "APP_RY60OCRF33Z7534"

_SEED = 20240229
_FIRST_MS = 1_709_193_600_000
_LIFE_MS = 90_000_000
_STEPS = 3
_PEOPLE = 5000
_DELETED, _REPEATED, _SWAPPED, _AUTOMATIC = 0.03, 0.01, 0.05, 0.5
"""Shares of instances: with a delete, a repeat, two neighbours out of order, a step that no person handles."""

_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_GIVEN = ("伟", "芳", "娜", "敏", "静", "秀英", "丽", "强", "磊", "军", "洋", "勇", "艳", "杰", "娟", "雨桐", "子轩")
_LATIN = ("Anna Berger", "John Miller", "Priya Nair", "Tom O'Neill", "Marie Dubois")
_PROCESSES = (
    ("TPROC--9BC6687125N9XAJ8873I0864QY122BZ96A2GL1", "访客申请", "{name}的{count}位访客申请"),
    ("TPROC--4KD66SA1XV0B7IOE6N1QK5Z5D9X13N5ZG2WKL8", "采购审批", "{name}发起的采购审批:办公设备{count}台"),
    ("TPROC--0O966ND1V7PEV8IXB0ZP27QJZJQV2TCE8KVKL3", "差旅报销", "差旅报销 {count} 天 / Travel expenses, {name}"),
    ("TPROC--JB6664C1MIYC1LYI7G3FF8JSR1VI3ZDL6Q9LL2", "Contract review", "Contract review no. {count} for {name}"),
    ("TPROC--F8866TB1K3RBPAXA9EAP67EI6JMN2IL21DRILC", "请假", "{name}请假{count}天"),
)
_REMARKS = (
    "请在周五之前处理, 谢谢",
    "由于供应商更换了报价, 需要重新走一次审批流程",
    "urgent: the customer visits on Monday",
    "",
    "同部门负责人已口头同意",
)


class Life:
    """One instance's ten events. All that chance decides about it follows from its number."""

    def __init__(self, number: int, *, seed: int = _SEED) -> None:
        chance = random.Random(f"{seed}/{number}")
        self.instance_id = _uuid(chance)
        self._began_ms = _FIRST_MS + chance.randrange(86_400_000)
        self._people = chance.sample(range(_PEOPLE), 6)
        self._tasks = [str(chance.randrange(10**10, 10**11)) for _ in range(_STEPS + 1)]
        self._code, self._process, pattern = chance.choice(_PROCESSES)
        self._count = chance.randrange(1, 200)
        self._title = pattern.format(name=_name(self._people[0]), count=self._count)
        self._remark = chance.choice(_REMARKS)
        self._moments = sorted(chance.sample(range(_LIFE_MS), EVENTS_PER_INSTANCE))
        self._signatures = chance.randbytes(16 * EVENTS_PER_INSTANCE).hex()
        self._automatic = chance.random() < _AUTOMATIC
        self._deleted = chance.random() < _DELETED
        self._order = list(range(EVENTS_PER_INSTANCE))
        if chance.random() < _REPEATED:
            self._order[-1] = chance.randrange(EVENTS_PER_INSTANCE - 1)
        if chance.random() < _SWAPPED:
            at = chance.randrange(EVENTS_PER_INSTANCE - 1)
            self._order[at], self._order[at + 1] = self._order[at + 1], self._order[at]

    def event(self, position: int) -> TaskEvent:
        """The event that arrives at that position (0 to 9) among the instance's own."""
        step = self._order[position]
        if step in (0, 9):
            return self._create(step, None)
        if step <= _STEPS:
            return self._create(step, step - 1)
        if step <= 2 * _STEPS:
            return self._decision(step, Action.COMPLETED, step - _STEPS - 1)
        if step == 2 * _STEPS + 1:
            return self._copy(step)
        if self._deleted:
            return self._deletion(step)
        return self._decision(step, Action.CANCELLED, _STEPS)

    def _create(self, step: int, task: int | None) -> TaskEvent:
        assignees = () if task is None or self._is_automatic(task) else (_person_id(self._people[task + 1]),)
        details: dict[str, object] = {}
        if task is not None:
            details = {"taskId": self._tasks[task], "actionerId": list(assignees)}
        return self._described(step, Action.CREATED, "create", assignees, details)

    def _copy(self, step: int) -> TaskEvent:
        copied = (_person_id(self._people[4]),)
        return self._described(step, Action.COPIED, "cc", copied, {"actionerIds": list(copied)})

    def _decision(self, step: int, action: Action, task: int) -> TaskEvent:
        actor = None if self._is_automatic(task) else _person_id(self._people[task + 1])
        name = "complete" if action is Action.COMPLETED else "cancel"
        parameters = self._flat(step) | {"taskId": self._tasks[task], "actualWorkId": actor or ""}
        return self._event(step, action, name, parameters, task_id=self._tasks[task], actor_id=actor)

    def _deletion(self, step: int) -> TaskEvent:
        return self._event(step, Action.DELETED, "delete", self._flat(step))

    def _is_automatic(self, task: int) -> bool:
        return self._automatic and task == 1

    def _described(
        self, step: int, action: Action, name: str, recipients: tuple[str, ...], details: dict[str, object]
    ) -> TaskEvent:
        """An event whose ``task`` describes the instance, as creates and cc do."""
        originator = Person(_person_id(self._people[0]), _name(self._people[0]))
        task = {
            "appType": APP_TYPE,
            "corpId": CORP_ID,
            "formInstanceId": self.instance_id,
            "originatorId": originator.user_id,
            "originatorDisplayName": originator.name,
            "processCode": self._code,
            "processName": self._process,
            "title": self._title,
            "url": self._url,
            "dataMap": self._form,
            **details,
        }
        text = json.dumps(task, ensure_ascii=False, separators=(",", ":"))
        task_id = details.get("taskId")
        return self._event(
            step,
            action,
            name,
            {"task": text, "dateTime": str(self._at(step)), "sign": self._sign(step)},
            task_id=task_id if isinstance(task_id, str) else None,
            recipient_ids=recipients,
            originator=originator,
            title=self._title,
            url=self._url,
            process_code=self._code,
            process_name=self._process,
            created_at=self._at(step) if action is Action.CREATED else None,
            form_data=self._form,
        )

    def _event(self, step: int, action: Action, name: str, parameters: dict[str, str], **fields: Any) -> TaskEvent:
        return TaskEvent(
            event_id=event_id_for("yida", name, parameters),
            source="yida",
            action=action,
            corp_id=CORP_ID,
            app_type=APP_TYPE,
            instance_id=self.instance_id,
            occurred_at=self._at(step),
            received_at=self._at(step) + 150,
            raw_parameters=parameters,
            **fields,
        )

    def _flat(self, step: int) -> dict[str, str]:
        return {
            "appType": APP_TYPE,
            "corpId": CORP_ID,
            "formInstId": self.instance_id,
            "dateTime": str(self._at(step)),
            "sign": self._sign(step),
        }

    def _at(self, step: int) -> int:
        return self._began_ms + self._moments[step]

    def _sign(self, step: int) -> str:
        return self._signatures[32 * step : 32 * (step + 1)]

    @property
    def _url(self) -> str:
        return f"https://www.aliwork.com/{APP_TYPE}/processDetail?procInsId={self.instance_id}"

    @cached_property
    def _form(self) -> dict[str, str | None]:
        return {
            "numberField_l4s57vma": str(self._count),
            "textareaField_l4s57vmf": self._remark,
            "cascadeDateField_l4sbkqco": None,
        }


def workload(events: int, *, seed: int = _SEED) -> Iterator[tuple[bytes, TaskEvent]]:
    """Record keys and events in the order in which they are produced; ``events`` is rounded down to whole instances."""
    instances = events // EVENTS_PER_INSTANCE
    turns = [number for number in range(instances) for _ in range(EVENTS_PER_INSTANCE)]
    random.Random(seed).shuffle(turns)
    lives: dict[int, tuple[bytes, Life]] = {}
    positions = [0] * instances
    for number in turns:
        if number not in lives:
            life = Life(number, seed=seed)
            lives[number] = (life.instance_id.encode(), life)
        key, life = lives[number]
        yield key, life.event(positions[number])
        positions[number] += 1
        if positions[number] == EVENTS_PER_INSTANCE:
            del lives[number]


def _person_id(number: int) -> str:
    return f"{1_000_000_000_000 + number * 7919:014}"


def _name(number: int) -> str:
    if number % 10 == 0:
        return _LATIN[number // 10 % len(_LATIN)]
    return _SURNAMES[number % len(_SURNAMES)] + _GIVEN[number // len(_SURNAMES) % len(_GIVEN)]


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))
