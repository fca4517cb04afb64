"""Work that continues in a thread, such as a flow of callbacks, while a test disturbs the system it works against."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, cast

from support.edge.fakes import SYSTEM_TOKEN, parameters_of
from taskbridge.cli.callbacks import Sender

if TYPE_CHECKING:
    from typing import Self

    from support.edge.process import RunningEdge


class InBackground(ABC):
    """Works while its context is open. An error of the thread is raised when the context ends."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    @abstractmethod
    def work(self) -> None:
        """Runs in the thread; returns when ``is_over`` is set."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self._failure = error


class Steadily(InBackground):
    """Posts one callback after the other, each of another instance, so to all partitions."""

    def __init__(self, edge: RunningEdge) -> None:
        super().__init__()
        self.statuses: Counter[int] = Counter()
        self.in_a_row: Counter[str] = Counter()
        """The number of equal answers at the end."""
        self.instances: set[str] = set()
        self._url = edge.url

    def work(self) -> None:
        with Sender(self._url) as sender:
            while not self.is_over.wait(0.05):
                instance_id = f"of-three-{len(self.instances)}"
                parameters = parameters_of("create", instance_id=instance_id)
                answer = sender.post("create", parameters, system_token=SYSTEM_TOKEN, encoding="json")
                self.statuses[answer.status] += 1
                self.instances.add(instance_id)
                durability = cast("dict[str, str]", answer.body)["durability"]
                self.in_a_row = Counter({durability: self.in_a_row[durability] + 1})
