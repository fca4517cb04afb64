"""DingTalk's work notifications (工作通知), which its older API alone has.

Names are those of its page on them
(https://open.dingtalk.com/document/orgapp/asynchronous-sending-of-enterprise-session-messages). A person gets the same
text once a day from one application.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

PEOPLE_PER_CALL = 100


class SendWorkNotification(Struct, frozen=True, kw_only=True):
    """POST: a message to people of the organisation."""

    path: ClassVar[str] = "/topapi/message/corpconversation/asyncsend_v2"

    agent_id: int
    userid_list: str
    """Comma-separated, PEOPLE_PER_CALL at most."""
    msg: dict[str, Any]


def message_of(title: str, text: str, link: str, url: str | None) -> dict[str, Any]:
    """For ``msg``; ``link`` is the words of the button that leads to ``url``."""
    if url is None:
        return {"msgtype": "text", "text": {"content": text}}
    card = {"title": title, "markdown": text, "single_title": link, "single_url": url}
    return {"msgtype": "action_card", "action_card": card}
