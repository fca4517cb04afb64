"""What became of an action, by what its system says of the instance. Pure."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

from taskbridge.center.actions.targets import AGREE, HAND_OVER, REASSIGN, REFUSE, RETURN, WITHDRAW
from taskbridge.schemas import outcomes
from taskbridge.schemas.events import SOURCE_YIDA, Status

if TYPE_CHECKING:
    from taskbridge.center.actions.store import Action
    from taskbridge.schemas.events import TaskEntry, TaskState

_WORDS = {AGREE: outcomes.AGREE, REFUSE: outcomes.DISAGREE, HAND_OVER: outcomes.FORWARD, RETURN: outcomes.RESTART} | {
    REASSIGN: outcomes.FORWARD
}
_TAG = re.compile("<[^<>]*>")
_SKEW_MS = 60_000
"""How much earlier than the request something may seem to have happened: the times of the vendor are minutes."""


def is_meant(action: str, word: str | None) -> bool | None:
    """Whether a decision that its system names by this word is the action; None if the word does not say."""
    known = outcomes.OUTCOMES.get((word or "").strip().lower())
    return None if known is None else known == _WORDS[action]


def is_said(remark: str, text: str) -> bool:
    """Whether a system shows the remark by this text: perhaps with markup, or after the name of who is notified."""
    said = _plain(remark)
    return any(_plain(each).endswith(said) for each in (text, _TAG.sub("", text))) if said else text.strip() == remark


def _plain(text: str) -> str:
    """Its letters and digits."""
    return "".join(each for each in unescape(text) if each.isalnum())


def is_carried_out(action: Action, state: TaskState) -> bool | None:
    """Whether the action was carried out; False if it cannot be any more, None if that is not known yet.

    A decision of the same person with another outcome is not the action, nor is the end of the instance.
    """
    if action.action == WITHDRAW:
        return _is_withdrawn(action, state)
    task = next((each for each in state.tasks if each.task_id == action.task_id), None)
    if task is not None and task.status is Status.PENDING:
        return None
    if task is not None and task.actor_id == action.recipient_id and action.action == REASSIGN:
        # It kept its id. Unless the system said yes, the recipient may have had it before.
        return True if action.status == "ACCEPTED" else None
    is_other = task is not None and task.actor_id != action.user_id and action.action != REASSIGN
    if task is None or task.status is not Status.COMPLETED or is_other:
        return False
    found = is_meant(action.action, task.outcome)
    is_theirs = False
    # Yida's yes is the hand-over itself, recorded under any name.
    if action.action == REASSIGN and (action.system, action.status) != (SOURCE_YIDA, "ACCEPTED"):
        # Somebody else may have handed it over, to another person.
        found = found and None
        # What the person did themself is read back.
        is_theirs = action.system == SOURCE_YIDA and task.actor_id == action.user_id
    if found is None and not is_theirs:
        found = action.action in (AGREE, REFUSE) or any(_is_next(action, state, each) for each in state.tasks) or None
    return False if found is None and state.finished_at is not None else found


def _is_withdrawn(action: Action, state: TaskState) -> bool | None:
    if any(each.status is Status.PENDING for each in state.tasks):
        return None
    if state.instance_status in outcomes.ENDED:
        return state.instance_status == outcomes.TERMINATED
    lately = {each.status for each in state.tasks if (each.decided_at or 0) >= action.requested_at - _SKEW_MS}
    if Status.CANCELLED in lately and Status.COMPLETED not in lately:
        return True
    # Between two steps, no task is pending either.
    return None if state.finished_at is None else False


def _is_next(action: Action, state: TaskState, task: TaskEntry) -> bool:
    """Whether this is the task with whom it is after the action: with a colleague, or at an earlier step."""
    if task.task_id == action.task_id or (task.created_at or 0) < action.requested_at - _SKEW_MS:
        return False
    if action.action in (HAND_OVER, REASSIGN):
        return action.recipient_id in task.assignee_ids
    if action.recipient_id:
        return task.step_id == action.recipient_id
    return state.originator is not None and state.originator.user_id in task.assignee_ids
