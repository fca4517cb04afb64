"""The words of states that say how something ended: the ``outcome`` of a task, and the status of an instance."""

from __future__ import annotations

AGREE, DISAGREE, FORWARD, RESTART = "agree", "disagree", "forward", "restart"
OUTCOMES = {
    **{each: each for each in (AGREE, DISAGREE, FORWARD, RESTART)},
    "同意": AGREE,
    "已同意": AGREE,
    "拒绝": DISAGREE,
    "已拒绝": DISAGREE,
    "转交": FORWARD,
    "已转交": FORWARD,
    "退回": RESTART,
    "已退回": RESTART,
}
"""The words by which a task was decided, in both languages → the same word in English."""

RUNNING, COMPLETED, TERMINATED, ERROR = "RUNNING", "COMPLETED", "TERMINATED", "ERROR"
ENDED = frozenset({COMPLETED, TERMINATED, ERROR})
"""The statuses of an instance without open tasks."""
