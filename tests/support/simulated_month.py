"""What the simulated company does in a month, and who did it; and a target in which it has landed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from support.landing import Source, encode_form, encode_person
from taskbridge.local.company import EMPLOYEES, FORMS
from taskbridge.local.simulation import SimulatedApp, SimulatedDingTalk, Simulation, event_of_posting
from taskbridge.schemas.events import FormData, Lifecycle, PersonRecord, Status, form_key, notification_key
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.local.fake_dingtalk import TrueInstance
    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import TaskEntry, TaskState
    from taskbridge.streams.fold.instance import Instance

CORP, BEGAN, EVENTS, BETWEEN = "corp", 1_761_955_200_000, 3_000, 860_000
APPS = [SimulatedApp("APP_1", CORP, "T1"), SimulatedApp("APP_2", CORP, "T2")]
AMOUNT = "numberField_amount"


@dataclass
class Month:
    states: dict[str, TaskState]
    """Of the requests that were not deleted."""
    forms: dict[str, TrueInstance]

    def of(self, code: str) -> Iterator[tuple[dict[str, str | None], TaskState]]:
        for key, each in self.forms.items():
            if each.form_uuid == f"FORM-{code}" and key in self.states:
                yield each.form_data, self.states[key]

    @property
    def purchases(self) -> list[tuple[Decimal, TaskState]]:
        return [(Decimal(str(data[AMOUNT])), state) for data, state in self.of("PURCHASE")]

    @property
    def decisions(self) -> list[tuple[TaskState, TaskEntry]]:
        return [(state, each) for state in self.states.values() for each in decided(state)]


@cache
def month() -> Month:
    dingtalk, folded = SimulatedDingTalk(APPS), dict[str, "Instance"]()
    simulation = Simulation(APPS, seed=42, happened=dingtalk.happened)
    for number in range(EVENTS):
        event = event_of_posting(simulation.next(BEGAN + BETWEEN * number))
        folded[event.instance_id] = fold(folded.get(event.instance_id), event)
    states = {key: each.state for key, each in folded.items() if each.state.lifecycle is not Lifecycle.DELETED}
    forms = {each.instance_id: each for each in dingtalk.company.instances(at_ms=BEGAN + BETWEEN * EVENTS)}
    ended = [key for key, each in forms.items() if key in states and AMOUNT in each.form_data and finished(states[key])]
    for key in ended[::7]:
        # An administrator changes the amount when everybody has approved it.
        data = {**forms[key].form_data, AMOUNT: "99999.50"}
        forms[key] = replace(forms[key], form_data=data, modified_ms=states[key].updated_at + 1)
    return Month(states, forms)


def decided(state: TaskState) -> list[TaskEntry]:
    return [each for each in state.tasks if each.status is Status.COMPLETED]


def finished(state: TaskState) -> bool:
    return state.finished_at is not None


def land_month(target: Database) -> None:
    source = Source()
    for form in FORMS:
        source.forms.append(form_key(CORP, form.form_uuid), encode_form(form))
    for each in EMPLOYEES:
        person = PersonRecord(each.user_id, each.name, each.department)
        source.people.append(notification_key(CORP, each.user_id), encode_person(person))
    for key, each in month().forms.items():
        deleted = key not in month().states
        data = {} if deleted else each.form_data
        source.put(
            FormData(
                CORP, each.app_type, str(each.form_uuid), key, each.modified_ms + 1, "event",
                data=data, modified_at=each.modified_ms, deleted=deleted,
            )
        )  # fmt: skip
    for state in month().states.values():
        source.move(state)
    source.land(target)
