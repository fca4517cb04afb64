"""The oracle of the webhooks benchmark: what is missing, repeated or overtaken is seen."""

from __future__ import annotations

import pytest
from tests.bench.command import NotCounted
from tests.bench.webhooks.load import Sent, check
from tests.bench.webhooks.receiver import Arrival

SENT = [Sent("erp", entry=number % 2, number=number, at_ns=0) for number in range(4)]


def arrived(*numbers: int) -> dict[str, list[Arrival]]:
    return {"erp": [Arrival(SENT[number].id, 1_000_000) for number in numbers]}


def test_deliveries_in_the_order_of_each_entry() -> None:
    assert check(SENT, arrived(1, 0, 2, 3)) == ([1.0] * 4, 0, 0)


def test_a_repeat_counts_once_where_it_came_first() -> None:
    assert check(SENT, arrived(0, 1, 2, 0, 3)) == ([1.0] * 4, 1, 0)


def test_a_later_change_that_came_first() -> None:
    assert check(SENT, arrived(2, 0, 1, 3)).overtaken == 1


@pytest.mark.parametrize("numbers", [(0, 1, 2), (0, 1, 2, 2)])
def test_a_missing_delivery_is_not_counted(numbers: tuple[int, ...]) -> None:
    with pytest.raises(NotCounted):
        check(SENT, arrived(*numbers))
