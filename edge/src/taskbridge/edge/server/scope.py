"""Names under which the protocol puts into a request's scope what ASGI has no place for; both make a short way."""

from __future__ import annotations

WHOLE_BODY = "taskbridge.body"
"""A small body that is all there. It counts only before anything is received by ASGI's own way."""

ANSWER_AT_ONCE = "taskbridge.answer"
"""What writes headers and body of a 200 at once, if it can, and says whether it has."""
