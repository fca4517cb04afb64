"""What is sent for a notification: one module for each format. They only map; ``call`` does the I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from taskbridge.runtime import extensions
from taskbridge.webhooks.formats import flat_todo, notification, template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.webhooks.formats.base import Format

_OWN: Mapping[str, Format] = {"notification": notification, "flat-todo": flat_todo, "template": template}


def format_of(name: str) -> Format:
    """The format: one of ours, or that of an entry point. Raises ConfigurationError if there is none to be used."""
    return _OWN.get(name) or cast("Format", extensions.load(extensions.WEBHOOK_FORMATS, name))
