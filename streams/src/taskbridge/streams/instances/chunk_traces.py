"""The traces of a chunk: its records bring many, and each notification continues the trace of its record.

A chunk is one span in the trace of its first sampled record, with a link to each of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from taskbridge.runtime import tracing as names
from taskbridge.runtime.tracing import TRACEPARENT, is_sampled, trace_id_of, traceparent_of
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.engine.app import APP_ID

if TYPE_CHECKING:
    from types import TracebackType

    from faust.types import TP

    from taskbridge.runtime.otel import Span, Tracing
    from taskbridge.streams.fold.core import Folded
    from taskbridge.streams.records import Chunk, Record


def trace_of(record: Record) -> dict[str, str]:
    traceparent = traceparent_of(record.headers)
    return {} if traceparent is None else {"trace_id": trace_id_of(traceparent)}


def follow(tracing: Tracing | None, tp: TP, records: Chunk) -> ChunkTrace | None:
    """The chunk's trace; None if no record has one. Without ``tracing``, trace contexts are only passed on."""
    found = {each.offset: traceparent for each in records if (traceparent := traceparent_of(each.headers)) is not None}
    return ChunkTrace(tracing, tp, len(records), found) if found else None


@dataclass(slots=True)
class ChunkTrace:
    """A chunk's spans, from its creation until ``committed``; without a commit, they end with the error."""

    tracing: Tracing | None
    tp: TP
    count: int
    traceparents: dict[int, str]
    _process: Span | None = None
    _sending: list[Span] = field(default_factory=list["Span"])

    def __post_init__(self) -> None:
        links = [each for each in self.traceparents.values() if is_sampled(each)]
        if self.tracing is None or not links:
            return
        topic, partition = self.tp
        self._process = self.tracing.start_span(
            names.message("process", topic),
            "CONSUMER",
            {
                **names.messaging("process", topic),
                names.GROUP: APP_ID,
                names.PARTITION: str(partition),
                names.BATCH: self.count,
            },
            parent=links[0],
            links=links,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self._end(error=kind.__name__)

    def committed(self) -> None:
        self._end()

    def pass_on(self, folded: Folded) -> None:
        causes = folded.causes()
        headers = {
            offset: (TRACEPARENT, self._send(self.traceparents[offset], count).encode())
            for offset, count in Counter(causes).items()
            if offset in self.traceparents
        }
        folded.notifications = [
            (key, value, [*theirs, headers[offset]] if offset in headers else theirs)
            for (key, value, theirs), offset in zip(folded.notifications, causes, strict=True)
        ]

    def _send(self, parent: str, count: int) -> str:
        if self.tracing is None or self._process is None or not is_sampled(parent):
            return parent
        topic = TASK_NOTIFICATIONS.name
        sending = self.tracing.start_span(
            names.message("send", topic),
            "PRODUCER",
            {**names.messaging("send", topic), names.BATCH: count},
            parent=parent,
            links=[self._process.traceparent] if self._process.is_recorded else [],
        )
        self._sending.append(sending)
        return sending.traceparent

    def _end(self, *, error: str | None = None) -> None:
        spans, self._sending = self._sending, []
        if self._process is not None:
            spans.append(self._process)
            self._process = None
        for each in spans:
            each.end(error=error)
