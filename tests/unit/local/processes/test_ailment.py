"""A problem that lasts is told, one that was seen by the way is not."""

from __future__ import annotations

from taskbridge.local.processes.ailment import Ailment


class Patient:
    """A service and a clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.problem: str | None = None
        self.asked = 0
        self.ailment = Ailment(self._ask, lasts_s=5, clock=lambda: self.now)

    def _ask(self) -> str | None:
        self.asked += 1
        return self.problem

    def after(self, seconds: float) -> str | None:
        self.now += seconds
        return self.ailment.lasting()


def test_it_is_told_once_it_has_lasted() -> None:
    patient = Patient()
    assert patient.after(60) is None
    patient.problem = "broken"
    assert [patient.after(1) for _ in range(6)] == [None] * 5 + ["broken"]


def test_a_problem_that_one_of_several_workers_has_is_told_too() -> None:
    patient = Patient()
    told: list[str | None] = []
    for second in range(8):
        patient.problem = "broken" if second in (0, 3, 7) else None
        told.append(patient.after(1))
    assert told == [None] * 7 + ["broken"]


def test_what_was_seen_once_is_forgotten() -> None:
    patient = Patient()
    patient.problem = "broken"
    assert patient.after(1) is None
    patient.problem = None
    assert [patient.after(1) for _ in range(12)] == [None] * 12
    patient.problem = "broken"
    assert patient.after(1) is None


def test_it_is_asked_once_a_second_however_often_one_looks() -> None:
    patient = Patient()
    for _ in range(100):
        patient.after(0.1)
    assert 9 <= patient.asked <= 11
