"""How many events of each action were folded in each of the last minutes. Pure."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MINUTES = 60
ACTIONS = tuple(action.value for action in Action if action is not Action.UNKNOWN)

_MINUTE_S = 60


class _Minute(NamedTuple):
    number: int
    actions: Counter[str]


class Flow:
    """The counts of one worker, for the last hour."""

    def __init__(self) -> None:
        self._minutes: deque[_Minute] = deque(maxlen=MINUTES)

    def count(self, actions: Mapping[Action, int], *, now_s: float) -> None:
        number = int(now_s // _MINUTE_S)
        if not self._minutes or self._minutes[-1].number < number:
            self._minutes.append(_Minute(number, Counter()))
        minute = self._minutes[-1].actions
        for action, count in actions.items():
            minute[action.value] += count

    def share(self) -> dict[str, dict[str, int]]:
        """The counts: minute since the epoch → action → events. Minutes without events are left out."""
        return {str(each.number): dict(each.actions) for each in self._minutes}


def flow_of(shares: Iterable[Mapping[str, Mapping[str, int]]], *, now_s: float) -> dict[str, Any]:
    """The last hour of all workers together, the oldest minute first, the present one last."""
    last = int(now_s // _MINUTE_S)
    numbers = range(last - MINUTES + 1, last + 1)
    total: dict[str, Counter[str]] = {}
    for share in shares:
        for minute, actions in share.items():
            total.setdefault(minute, Counter()).update(actions)
    return {
        "minutes": [iso(number * _MINUTE_S * 1000) for number in numbers],
        "actions": {action: [total.get(str(each), Counter())[action] for each in numbers] for action in ACTIONS},
    }
