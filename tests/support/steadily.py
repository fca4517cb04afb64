"""Callbacks that keep coming, one after the other, while something is done to what they go to."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, cast

from taskbridge.cli.callbacks.sending import Sender
from taskbridge.edge.testing import SYSTEM_TOKEN, parameters_of

if TYPE_CHECKING:
    from typing import Self

    from running_edge import RunningEdge


class Steadily:
    """Posts one callback after the other, each of another instance, and so to any partition."""

    def __init__(self, edge: RunningEdge) -> None:
        self.statuses: Counter[int] = Counter()
        self.in_a_row: Counter[str] = Counter()
        """The last so many answers, all alike."""
        self.instances: set[str] = set()
        self._url = edge.url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._post_all)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _post_all(self) -> None:
        with Sender(self._url) as sender:
            while not self._stop.wait(0.01):
                instance_id = f"of-three-{len(self.instances)}"
                parameters = parameters_of("create", instance_id=instance_id)
                answer = sender.post("create", parameters, system_token=SYSTEM_TOKEN, encoding="json")
                self.statuses[answer.status] += 1
                self.instances.add(instance_id)
                durability = cast("dict[str, str]", answer.body)["durability"]
                self.in_a_row = Counter({durability: self.in_a_row[durability] + 1})
