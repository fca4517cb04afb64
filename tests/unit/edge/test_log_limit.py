"""However many lines strangers cause, the log grows at a bounded rate and says how much it does not show."""

from __future__ import annotations

from edge.log_limit import LineLimit


def test_lines_beyond_the_bound_are_counted_and_told_with_the_next() -> None:
    now = 0.0
    lines = LineLimit(per_second=2, burst=3, clock=lambda: now)
    assert [lines.take() for _ in range(5)] == [0, 0, 0, None, None]
    now = 0.5
    assert [lines.take(), lines.take()] == [2, None]
    now = 100.0
    assert [lines.take() for _ in range(4)] == [1, 0, 0, None]
