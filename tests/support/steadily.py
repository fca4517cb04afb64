"""Callbacks that keep coming, one after the other, while something is done to what they go to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

from in_background import InBackground
from taskbridge.cli.callbacks.sending import Sender
from taskbridge.edge.testing import SYSTEM_TOKEN, parameters_of

if TYPE_CHECKING:
    from running_edge import RunningEdge


class Steadily(InBackground):
    """Posts one callback after the other, each of another instance, and so to any partition."""

    def __init__(self, edge: RunningEdge) -> None:
        super().__init__()
        self.statuses: Counter[int] = Counter()
        self.in_a_row: Counter[str] = Counter()
        """The last so many answers, all alike."""
        self.instances: set[str] = set()
        self._url = edge.url

    def work(self) -> None:
        with Sender(self._url) as sender:
            while not self.is_over.wait(0.01):
                instance_id = f"of-three-{len(self.instances)}"
                parameters = parameters_of("create", instance_id=instance_id)
                answer = sender.post("create", parameters, system_token=SYSTEM_TOKEN, encoding="json")
                self.statuses[answer.status] += 1
                self.instances.add(instance_id)
                durability = cast("dict[str, str]", answer.body)["durability"]
                self.in_a_row = Counter({durability: self.in_a_row[durability] + 1})
