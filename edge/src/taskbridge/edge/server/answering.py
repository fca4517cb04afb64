"""uvicorn's HTTP protocol, which here knows the request that is being answered, and a shorter way to answer it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taskbridge.runtime.http.refusals import encoded_answer

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from taskbridge.runtime.http.refusals import Headers


ANSWER_AT_ONCE = "taskbridge.answer"
"""Under this name a request's scope has what writes headers and body of a 200 at once, and says whether it could."""


class AnsweringProtocol(HttpToolsProtocol):
    """One connection. Of the requests on it, one is answered at a time."""

    _running: RequestResponseCycle | None = None

    @property
    def _at_work(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _answer_at_once(self, headers: Headers, body: bytes) -> bool:
        """Answer the running request with 200 by one system call; uvicorn makes one for the head, one for the body.

        False when that cannot be now; then nothing was written.
        """
        cycle = self._running
        if cycle is None or cycle.disconnected or cycle.response_started or self.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        lines = [*cycle.default_headers, *headers]
        if not cycle.keep_alive:
            lines.append((b"connection", b"close"))
        self.transport.write(encoded_answer(HTTPStatus.OK, lines, body))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def _wait_for_next(self) -> None:
        """For a request that was answered before its end: uvicorn begins to wait when it answers."""
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
