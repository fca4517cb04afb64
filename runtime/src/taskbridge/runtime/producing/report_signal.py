"""A descriptor that librdkafka makes readable as soon as it has delivery reports: one write for a batch of them."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

import confluent_kafka

if TYPE_CHECKING:
    from confluent_kafka import Producer

_KNOWN = ("2.16.1", 176)
"""Version and size of the Python object whose first member is known to be librdkafka's handle."""
_NOTHING = -1
_ONE = (1).to_bytes(8, "little")


def report_signal(producer: Producer) -> int | None:
    """An eventfd for ``close_signal``; None where this library is not known.

    librdkafka writes to it when the first report comes where there was none, so what is there already has to be
    polled for once. It has a function for it which confluent-kafka does not hand on: what is known of its objects is
    one version's, and any other is polled instead.
    """
    if (confluent_kafka.__version__, type(producer).__basicsize__) != _KNOWN or _library() is None:
        return None
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    _write_to(descriptor, producer)
    return descriptor


def close_signal(descriptor: int, producer: Producer) -> None:
    """Close the eventfd of a producer that still exists; librdkafka writes to this number no more.

    Closed alone, it would be written to for as long as anything else holds the producer, as ``list_topics`` does in a
    thread, and the number may be a client's connection by then.
    """
    _write_to(_NOTHING, producer)
    os.close(descriptor)


def _library() -> ctypes.CDLL | None:
    found = list((Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*"))
    return ctypes.CDLL(str(found[0])) if len(found) == 1 else None


def _write_to(descriptor: int, producer: Producer) -> None:
    """Under the queue's lock, which librdkafka holds while it writes, too."""
    library = _library()
    assert library is not None, "it is known"
    queue_of = library.rd_kafka_queue_get_main
    queue_of.argtypes, queue_of.restype = [ctypes.c_void_p], ctypes.c_void_p
    enable = library.rd_kafka_queue_io_event_enable
    enable.argtypes, enable.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t], None
    destroy = library.rd_kafka_queue_destroy
    destroy.argtypes, destroy.restype = [ctypes.c_void_p], None
    queue = queue_of(ctypes.c_void_p.from_address(id(producer) + object.__basicsize__))
    enable(queue, descriptor, _ONE, len(_ONE))
    destroy(queue)  # the reference, not the queue
