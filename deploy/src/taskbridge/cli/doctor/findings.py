"""Findings: the result of one check, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class State(StrEnum):
    """``FAILED``: it will not work, or data can be lost. ``WARNING``: it works, but is at risk."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """A stable name of the check, for programs."""
    state: State
    says: str
    do: str = ""
    """What to do; empty if the check passed."""

    def as_json(self) -> dict[str, str]:
        return {"check": self.check, "state": self.state, "says": self.says, "do": self.do}


def ok(check: str, says: str) -> Finding:
    return Finding(check, State.OK, says)


def warning(check: str, says: str, do: str) -> Finding:
    return Finding(check, State.WARNING, says, do)


def failed(check: str, says: str, do: str) -> Finding:
    return Finding(check, State.FAILED, says, do)


def found(check: str, look: Callable[[], Iterable[Finding]], do: str) -> Iterator[Finding]:
    """The findings of a check; an error that it raises becomes a finding too."""
    try:
        yield from look()
    except TaskbridgeError as error:
        yield failed(check, str(error), do)
