"""What the path of a request says: by which door it came, and what it reports there."""

from __future__ import annotations

import re

from taskbridge.edge.callbacks import ACTIONS, PUSH, UNKNOWN

YIDA_PATHS = {f"/yida/tasks/{action}": action for action in ACTIONS}
_BELOW = "/sources/{source}/tasks"
SOURCE_PATHS = {_BELOW: PUSH} | {f"{_BELOW}/{action}": action for action in ACTIONS}

_SLASHES = re.compile("//+")
_DOORS = re.compile(r"/(?:yida|sources)(?:/.*)?", re.DOTALL)
_OF_SOURCE = re.compile(rf"/sources/([^/]+)/tasks(?:/({'|'.join(ACTIONS)}))?")


def action_of(path: str) -> str | None:
    """The action that is posted there, ``UNKNOWN`` where it may have been meant as one, None where nothing was."""
    action = YIDA_PATHS.get(path)
    if action is not None:
        return action
    plain = _plain(path)
    found = _OF_SOURCE.fullmatch(plain)
    if found is not None:
        return found[2] or PUSH
    return YIDA_PATHS.get(plain, UNKNOWN) if _DOORS.fullmatch(plain) else None


def source_of(path: str) -> str | None:
    """The other system that is said to post there, None for Yida. Nothing of it is verified."""
    if path in YIDA_PATHS:
        return None
    found = _OF_SOURCE.fullmatch(_plain(path))
    return None if found is None else found[1]


def _plain(path: str) -> str:
    """Upper case, doubled and trailing slashes come of typing an address: what is meant is plain."""
    return _SLASHES.sub("/", path.lower()).rstrip("/")
