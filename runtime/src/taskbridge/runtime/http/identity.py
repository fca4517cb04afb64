"""Which service answers a readiness probe, so that nobody takes another's answer for the one that was meant."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "Taskbridge-Service"
RUN_VARIABLE = "TASKBRIDGE_RUN"
"""Set by whoever starts a service: a word that nobody else has, which its readiness then repeats."""


def identity(service: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The headers of a readiness answer: the service's name and, where it was given one, the word of its start."""
    return {HEADER: f"{service} {environment.get(RUN_VARIABLE, '')}".strip()}
