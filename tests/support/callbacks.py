"""Post one callback, with a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.cli.callbacks import Answer, Sender

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.edge.sender import Encoding


def post_callback(
    url: str, action: str, parameters: Mapping[str, str], *, system_token: str, encoding: Encoding
) -> Answer:
    with Sender(url) as sender:
        return sender.post(action, parameters, system_token=system_token, encoding=encoding)
