"""What nobody signed costs little: it is looked at by compiled code only, and hashed a bounded number of times."""

from __future__ import annotations

import hashlib

import pytest
from hostile import SIZE, Hostile, hostile, least_processor_s

from taskbridge.edge.parsing import strict_json

HASHES = 20
"""A megabyte that is not proven takes the processor no longer than hashing it so many times would; nearly all take 8,
as ``tests/bench/unproven.py`` shows."""


@pytest.mark.parametrize("request_", hostile(), ids=lambda each: each.name)
def test_what_is_not_proven_never_reaches_the_parser_that_makes_values(
    request_: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(_: str) -> None:
        raise AssertionError("it is parsed whole before it is proven")

    monkeypatch.setattr(strict_json, "parse", unexpected)
    assert request_.refused() == request_.reason


def test_what_is_not_proven_costs_little_whatever_it_holds() -> None:
    unit = least_processor_s(lambda: hashlib.md5(b"x" * SIZE, usedforsecurity=False).digest())
    costs = {each.name: least_processor_s(each.refused) / unit for each in hostile()}
    assert {name: cost for name, cost in costs.items() if cost > HASHES} == {}
