"""Extensions: what installed distributions add to a service by entry points, without a fork.

They run inside the service and see its secrets. The operator who installs them trusts them.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

CENTER_SETTINGS, SIGN_IN, SYSTEMS = "taskbridge.center_settings", "taskbridge.sign_in", "taskbridge.systems"
WEBHOOK_FORMATS = "taskbridge.webhook_formats"
"""The groups of entry points."""


@cache
def load(group: str, name: str) -> Any:
    """What the entry point of this name in this group names.

    Raises ConfigurationError in one line: no distribution has it, several have it, or it cannot be imported.
    """
    found = list(entry_points(group=group, name=name))
    if not found:
        installed = ", ".join(names(group)) or "none"
        raise ConfigurationError(f"{name} is not installed (installed for {group}: {installed})")
    if len(found) > 1:
        raise ConfigurationError(
            f"{name} of {group} is in {' and '.join(sorted(map(_distribution, found)))}: uninstall one"
        )
    [point] = found
    try:
        return point.load()
    except Exception as error:
        raise ConfigurationError(
            f"{name} of {group} cannot be loaded: {type(error).__name__}: {error};"
            f" correct or uninstall {_distribution(point)}"
        ) from error


def names(group: str) -> list[str]:
    return sorted({each.name for each in entry_points(group=group)})


def load_all(group: str) -> list[Any]:
    """What all entry points of this group name. Raises as ``load``."""
    return [load(group, each) for each in names(group)]


def _distribution(point: EntryPoint) -> str:
    return "an unknown distribution" if point.dist is None else point.dist.name
