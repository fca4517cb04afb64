"""Where the last events of an instance stand on their partition, so that they are found again on the topic. Pure.

Not part of what an instance is: they depend on what came when, and the fold does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_OFFSETS = 100

_MORE, _BITS, _LOW = 0x80, 7, 0x7F
_LARGEST = (1 << 63) - 1


def with_offset(offsets: tuple[int, ...], offset: int) -> tuple[int, ...]:
    """The last MAX_OFFSETS with one more event's. One that is not behind the last was met before: it comes again."""
    if offsets and offset <= offsets[-1]:
        return offsets
    return (*offsets[-MAX_OFFSETS + 1 :], offset)


def write_offsets(offsets: Sequence[int]) -> bytes:
    """Each as its distance from the one before, seven bits a byte, the lowest first."""
    written, before = bytearray(), 0
    for offset in offsets:
        rest, before = offset - before, offset
        while rest > _LOW:
            written.append(rest & _LOW | _MORE)
            rest >>= _BITS
        written.append(rest)
    return bytes(written)


def read_offsets(written: bytes) -> tuple[int, ...]:
    """What ``write_offsets`` wrote.

    Raises:
        ValueError: it ends within a number, or one is larger than any offset.
    """
    offsets: list[int] = []
    last = distance = shift = 0
    for byte in written:
        distance |= (byte & _LOW) << shift
        shift += _BITS
        if byte < _MORE:
            last += distance
            offsets.append(last)
            distance = shift = 0
    if shift:
        raise ValueError("it ends within an offset")
    if last > _LARGEST:
        raise ValueError("an offset of more than 63 bits")
    return tuple(offsets)
