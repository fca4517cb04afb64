"""Work that goes on in a thread of its own while a test does something to what it goes to."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


class InBackground(ABC):
    """Works for as long as its context is open. What goes wrong in the thread is raised at the context's end."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    @abstractmethod
    def work(self) -> None:
        """In that thread. Returns when ``is_over`` is set."""

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
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails by it
            self._failure = error
