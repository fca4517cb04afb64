"""What is sent for a notification: one module for each format. They only map; ``call`` does the I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.webhooks.formats import dingtalk_todo, feishu_approval, flat_todo, notification, template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.webhooks.formats.base import Format

FORMATS: Mapping[str, Format] = {
    "notification": notification,
    "dingtalk-todo": dingtalk_todo,
    "feishu-approval": feishu_approval,
    "flat-todo": flat_todo,
    "template": template,
}
