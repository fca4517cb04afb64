"""Posts the simulated company's callbacks to an edge at a steady rate, as Yida would: once, whatever the answer."""

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
"""For apps whose corp the credentials do not name; that of the demo."""


@dataclass(slots=True)
class Tally:
    """What became of what was posted."""

    posted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """``kafka`` and ``spool`` as the edge answered, else the status."""
    actions: Counter[str] = field(default_factory=Counter[str])
    kinds: Counter[str] = field(default_factory=Counter[str])
    problem: str | None = None
    """Of the last one that was not accepted."""
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
        told = ", ".join(f"{count} {name}" for name, count in sorted(self.all_outcomes.items()))
        a_second = self.posted / self.seconds if self.seconds else 0.0
        dropped = f"; {self.dropped} dropped, which Yida would have posted" if self.dropped else ""
        return f"{self.posted} callbacks in {self.seconds:.0f} s ({a_second:.1f} a second): {told or 'none'}{dropped}"

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
    """The apps of a credentials file that are to post, each with its newest token.

    Raises:
        ConfigurationError: the file cannot be read, or lacks one that is wanted.
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
    """The task center of one person."""
    return f"{streams_url}/?{urlencode({'corp_id': corp_id, 'user_id': user_id})}"


def introduce(connection: Connection, corps: Collection[str], progress: Progress) -> None:
    """Have the company's people known by their names, and its forms by their labels, in these corps. Safe to repeat.

    Raises:
        OperatorError: Kafka or the registry does not answer, or this user may not.
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
    """Post until told to stop, or until there were as many, or for as long. One connection, one callback at a time.

    Raises:
        OperatorError: not even the first is accepted. Later ones are counted, for Yida goes on too.
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
                progress(f"{tally.line()}; {simulation.under_way} under way")
            # By the beginning, not by the last: the rate holds however long an answer takes.
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
            f"the edge refused '{posting.action}' of {posting.app.app_type} with {answer.status}: {answer.body}"
        )
