"""Post the simulated company's callbacks to an edge at a steady rate, once each, as Yida does."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from taskbridge.cli.callbacks.sending import Sender
from taskbridge.cli.demo.company import EMPLOYEES, FORMS
from taskbridge.cli.demo.simulation import DROPPED, SimulatedApp, Simulation
from taskbridge.cli.demo.story import CORP, VISITORS
from taskbridge.cli.imports.importing import FORMS_TARGET, PEOPLE_TARGET, fill
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import PersonRecord, form_key, notification_key

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection
    from pathlib import Path

    from taskbridge.cli.connection import Connection
    from taskbridge.local.progress import Progress

_SAY_EVERY_S = 5.0

SIMULATED_CORP = CORP
"""The corp of apps without one in the credentials; that of the demo."""


_OUTCOMES = {"kafka": "{} stored in Kafka", "spool": "{} stored in the spool", "unanswered": "{} unanswered"}


@dataclass(slots=True)
class Tally:
    """Counts of the outcomes."""

    posted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """By durability (``kafka``, ``spool``), else by HTTP status."""
    actions: Counter[str] = field(default_factory=Counter[str])
    kinds: Counter[str] = field(default_factory=Counter[str])
    problem: str | None = None
    """Of the last rejected callback."""
    seconds: float = 0.0

    @property
    def accepted(self) -> int:
        return self.outcomes["kafka"] + self.outcomes["spool"]

    @property
    def dropped(self) -> int:
        return self.kinds[DROPPED]

    @property
    def all_outcomes(self) -> dict[str, int]:
        unanswered = self.posted - self.outcomes.total()
        return {**self.outcomes, "unanswered": unanswered} if unanswered else dict(self.outcomes)

    def line(self) -> str:
        counts = sorted(self.all_outcomes.items())
        stored = ", ".join(_OUTCOMES.get(name, f"{{}} answered {name}").format(count) for name, count in counts)
        if [name for name, _ in counts] == ["kafka"]:
            stored = "all stored in Kafka"
        per_second = self.posted / self.seconds if self.seconds else 0.0
        dropped = f"; {self.dropped} dropped, not posted" if self.dropped else ""
        sent = f"{self.posted} sent in {self.seconds:.0f} s ({per_second:.1f} per second)"
        return f"{sent}, {stored or 'none stored'}{dropped}"

    def as_json(self) -> dict[str, Any]:
        return {
            "posted": self.posted,
            "accepted": self.accepted,
            "dropped": self.dropped,
            "seconds": round(self.seconds, 1),
            "outcomes": self.all_outcomes,
            "actions": dict(self.actions),
            "kinds": dict(self.kinds),
        }


def apps_of(credentials: Path, wanted: Collection[str] = ()) -> list[SimulatedApp]:
    """The apps of a credentials file that post, each with its newest token.

    Raises:
        ConfigurationError: the file cannot be read, or lacks a requested app.
    """
    current = CredentialsFile(credentials).current
    found = [
        SimulatedApp(app_type, app.corp_id or SIMULATED_CORP, app.tokens[0].secret.get_secret_value())
        for app_type in dict.fromkeys(each.app_type for each in current.tokens)
        if not wanted or app_type in wanted
        for app in current.apps(app_type)[:1]
    ]
    missing = set(wanted) - {each.app_type for each in found}
    if missing or not found:
        raise ConfigurationError(f"{credentials} has no app {', '.join(sorted(missing)) or 'at all'}")
    return found


def page_of(streams_url: str, corp_id: str, user_id: str) -> str:
    """The URL of one person's task center."""
    return f"{streams_url}/?{urlencode({'corp_id': corp_id, 'user_id': user_id})}"


def introduce(connection: Connection, corps: Collection[str], progress: Progress) -> None:
    """Import the names of the company's people and the labels of its forms in these corps. Safe to repeat.

    Raises:
        OperatorError: Kafka or the registry does not answer, or denies access.
    """
    people = [PersonRecord(each.user_id, each.name, each.department) for each in EMPLOYEES]
    named = {notification_key(corp, each.user_id): each for corp in corps for each in people}
    fill(connection, PEOPLE_TARGET, named, progress)
    labelled = {form_key(corp, each.form_uuid): each for corp in corps for each in (VISITORS, *FORMS)}
    fill(connection, FORMS_TARGET, labelled, progress)


def simulate(
    url: str,
    simulation: Simulation,
    *,
    tally: Tally,
    rate: float,
    stop: threading.Event,
    progress: Progress,
    count: int | None = None,
    seconds: float | None = None,
) -> None:
    """Post until ``stop``, ``count`` or ``seconds``. One connection, one callback at a time.

    Raises:
        OperatorError: the first callback is rejected. Later rejections are only counted, as Yida continues too.
    """
    said = started = time.monotonic()
    with Sender(url) as sender:
        while not stop.is_set() and (count is None or tally.posted < count):
            tally.seconds = time.monotonic() - started
            if seconds is not None and tally.seconds >= seconds:
                break
            _post(sender, simulation, tally)
            tally.seconds = time.monotonic() - started
            if tally.posted == 1 and not tally.accepted:
                raise OperatorError(str(tally.problem))
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                progress(f"{tally.line()}; {simulation.under_way} requests open")
            # Relative to the start, so that slow responses do not lower the rate.
            stop.wait(max(0.0, started + tally.posted / rate - time.monotonic()))


def _post(sender: Sender, simulation: Simulation, tally: Tally) -> None:
    posting = simulation.next(time.time_ns() // 1_000_000)
    tally.kinds[posting.kind] += 1
    if posting.kind == DROPPED:
        return
    tally.posted += 1
    tally.actions[posting.action] += 1
    try:
        answer = sender.post(
            posting.action, posting.parameters, system_token=posting.app.system_token, encoding=posting.encoding
        )
    except OperatorError as error:
        tally.problem = str(error)
        return
    if answer.accepted:
        tally.outcomes[str(answer.body["durability"])] += 1
    else:
        tally.outcomes[str(answer.status)] += 1
        tally.problem = (
            f"the edge rejected '{posting.action}' of {posting.app.app_type} with {answer.status}: {answer.body}"
        )
