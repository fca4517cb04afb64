"""What a look at an environment found, one by one, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class State(StrEnum):
    """``FAILED``: it will not work, or something can be lost. ``WARNING``: it works, and could go wrong."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """A word for programs, always the same for the same check."""
    state: State
    says: str
    do: str = ""
    """What to do, unless all is well."""

    def as_json(self) -> dict[str, str]:
        return {"check": self.check, "state": self.state, "says": self.says, "do": self.do}


def ok(check: str, says: str) -> Finding:
    return Finding(check, State.OK, says)


def warning(check: str, says: str, do: str) -> Finding:
    return Finding(check, State.WARNING, says, do)


def failed(check: str, says: str, do: str) -> Finding:
    return Finding(check, State.FAILED, says, do)


def found(check: str, look: Callable[[], Iterable[Finding]], do: str) -> Iterator[Finding]:
    """What a look finds; an error of ours that it ends with is a finding too."""
    try:
        yield from look()
    except TaskbridgeError as error:
        yield failed(check, str(error), do)
