"""When the service makes its next pass. An outage must not use up the day's calls."""

from __future__ import annotations

from taskbridge.reconcile.app import pause_s

NOW, DAY_S, HOUR_S = 1_790_000_000_000, 86_400, 3600


def test_after_a_complete_pass_the_pause_is_the_setting() -> None:
    assert pause_s(None, now_ms=NOW, failures=0, every_s=DAY_S) == DAY_S


def test_while_dingtalk_does_not_answer_the_pause_doubles() -> None:
    pauses = [pause_s(NOW + 60_000, now_ms=NOW, failures=each, every_s=DAY_S) for each in range(1, 21)]
    assert pauses[:4] == [60, 120, 240, 480]
    assert pauses == sorted(pauses)
    assert pauses[-1] == DAY_S


def test_no_retry_is_earlier_than_its_time() -> None:
    tomorrow = NOW + DAY_S * 1000
    assert pause_s(tomorrow, now_ms=NOW, failures=1, every_s=HOUR_S) == DAY_S
    assert pause_s(NOW - 1, now_ms=NOW, failures=1, every_s=HOUR_S) == 60
