"""A sender's clock may be a little ahead, and no more."""

from __future__ import annotations

import pytest

from taskbridge.schemas.moments import believed

RECEIVED = 1_700_000_000_000


@pytest.mark.parametrize(
    ("at", "counts_as"),
    [
        (RECEIVED - 10_000_000, RECEIVED - 10_000_000),
        (RECEIVED, RECEIVED),
        (RECEIVED + 300_000, RECEIVED + 300_000),
        (RECEIVED + 300_001, RECEIVED),
        (253_402_300_799_999, RECEIVED),
    ],
)
def test_a_date_more_than_five_minutes_past_its_receipt_counts_as_that(at: int, counts_as: int) -> None:
    assert believed(at, received_at=RECEIVED) == counts_as
