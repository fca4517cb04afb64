"""A flood costs a bounded number of log lines, says how many it left out, and hides nobody else's."""

from __future__ import annotations

from taskbridge.edge.server.rejection_log import ALL_LINES_PER_MINUTE, LINES_PER_MINUTE, RejectionLog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_sampled_and_what_is_left_out_is_said() -> None:
    clock = Clock()
    log = RejectionLog(clock=clock)
    said = [log.admit("wrong-sign", "192.0.2.1") for _ in range(10_000)]
    assert said[:LINES_PER_MINUTE] == [0] * LINES_PER_MINUTE
    assert set(said[LINES_PER_MINUTE:]) == {None}
    clock.now = 60 / LINES_PER_MINUTE + 0.01
    assert log.admit("wrong-sign", "192.0.2.1") == 10_000 - LINES_PER_MINUTE
    assert log.admit("wrong-sign", "192.0.2.1") is None


def test_another_sender_and_another_reason_still_have_their_lines() -> None:
    log = RejectionLog(clock=Clock())
    for _ in range(1000):
        log.admit("wrong-sign", "192.0.2.1")
    assert log.admit("wrong-sign", "192.0.2.2") is not None
    assert log.admit("unknown-app", "192.0.2.1") is not None


def test_a_flood_from_everywhere_is_bounded_too() -> None:
    log = RejectionLog(clock=Clock())
    lines = [log.admit("wrong-sign", f"10.0.{each // 256}.{each % 256}") for each in range(5000)]
    assert sum(line is not None for line in lines) == ALL_LINES_PER_MINUTE
