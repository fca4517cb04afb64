"""A fake DingTalk with all events of the simulated company, also of dropped callbacks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from taskbridge.edge.callbacks import event_of, locate
from taskbridge.reconcile.clock import SystemClock
from taskbridge.reconcile.testing.company import Company
from taskbridge.reconcile.testing.fake import FakeDingTalk
from taskbridge.reconcile.testing.serving import served

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from taskbridge.cli.demo.simulation import Posting, SimulatedApp
    from taskbridge.schemas.events import TaskEvent


def event_of_posting(posting: Posting) -> TaskEvent:
    """The event of a callback, posted or dropped."""
    received_at = int(posting.parameters["dateTime"])
    return event_of(locate(posting.action, posting.parameters), posting.parameters, received_at=received_at)


class Truth:
    """Records all events, and answers as DingTalk's open API does."""

    def __init__(self, apps: Sequence[SimulatedApp], *, is_served: bool = True) -> None:
        """Without ``is_served`` no event is recorded."""
        self._is_served = is_served
        self.company = Company()
        tokens = {each.app_type: each.system_token for each in apps}
        self.dingtalk = FakeDingTalk(self.company, SystemClock(), system_tokens=tokens)

    def happened(self, posting: Posting) -> None:
        if self._is_served:
            self.company.happened(event_of_posting(posting))

    @contextmanager
    def served(self, port: int | None) -> Generator[str | None]:
        """Its address on loopback, until the end of the block; None where no port is given."""
        if port is None:
            yield None
        else:
            with served(self.dingtalk.app, port=port) as url:
                yield url
