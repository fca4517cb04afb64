"""Only request lines are escaped, wherever in what arrives they begin; all else stays as it came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.runtime.serving import cut_at_lines, ends_in_line

PARTS = st.sampled_from([b"POST /", b"GET /", b"a", b" ", b"\xe5\xbc\xa0", b"\r\n", b"HTTP/1.1"])


@given(st.lists(PARTS, max_size=30).map(b"".join))
def test_a_line_beyond_ascii_stands_only_at_the_beginning_of_a_piece(data: bytes) -> None:
    pieces = cut_at_lines(data)
    assert b"".join(pieces) == data
    for piece in pieces:
        rest = piece[1:].replace(b"GET /", b"POST /").split(b"POST /")[1:]
        assert all(each.partition(b" ")[0].partition(b"\r")[0].isascii() for each in rest)


def test_a_body_full_of_what_may_be_lines_is_cut_a_bounded_number_of_times() -> None:
    full = b"POST /\xff" * 2000
    assert b"".join(cut_at_lines(full)) == full
    assert len(cut_at_lines(full)) == 17


@pytest.mark.parametrize(
    ("data", "url", "began", "before", "expected"),
    [
        (b"{}PO", b"", True, False, True),
        (b"{}POST /yi", b"/yi", True, False, True),
        (b"{}POST /yi HTTP/1", b"/yi", True, False, True),
        (b"{}POST /yi HTTP/1.1\r\n", b"/yi", True, False, False),
        (b"{}POST /yi HTTP/1.1\r\nHost: ed", b"/yi", True, False, False),
        (b"ge", b"/yi", False, True, True),
        (b"ge HTTP/1.1\r\n", b"/yi", False, True, False),
        (b"ge", b"/yi", False, False, False),
    ],
)
def test_where_a_head_ends_that_is_not_whole(
    data: bytes,
    url: bytes,
    began: bool,  # noqa: FBT001 - a table
    before: bool,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    assert ends_in_line(data, url, began=began, before=before) is expected
