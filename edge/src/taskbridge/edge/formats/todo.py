"""The flat push of a unified to-do list (统一待办), as Weaver's e-cology takes it and many Chinese OA systems send it.

One request for each receiver and step. Which of them it is, ``isremark`` says: 0 to do, 2 done, 4 done and the flow has
ended, 8 to read. A task has no id of its own: it is what this receiver is to do at this step of the flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.edge.parsing.fields import first, web_address
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATES = {"0": Action.CREATED, "2": Action.COMPLETED, "4": Action.COMPLETED, "8": Action.COPIED}
_ENDED = "4"


def told(body: Mapping[str, Any]) -> tuple[Action | None, Mapping[str, Any]]:
    """What happened, None where no state is told, and the fields of the event."""
    state, receiver = str(body.get("isremark")), body.get("receiver")
    at = first(body, ("receivets", "receivedatetime"))
    return _STATES.get(state), {
        "app_type": body.get("syscode"),
        "instance_id": body.get("flowid"),
        "task_id": f"{body.get('nodename')}/{receiver}" if receiver else None,
        "title": body.get("requestname"),
        "process_name": body.get("workflowname"),
        "originator": body.get("creator"),
        "recipient_ids": [receiver],
        "actor_id": receiver,
        "url": web_address((body.get("pcurl"), body.get("appurl"))),
        "instance_status": body.get("isremark"),
        "finished_at": at if state == _ENDED else None,
        "time": at,
    }
