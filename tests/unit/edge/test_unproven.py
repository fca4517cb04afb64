"""Unsigned requests cost little: only compiled code reads them, and they are hashed a bounded number of times."""

from __future__ import annotations

import hashlib

import pytest

from support.edge.expensive import SIZE, Hostile, hostile, least_processor_s
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


def test_an_unproven_request_costs_little_with_any_content() -> None:
    unit = least_processor_s(lambda: hashlib.md5(b"x" * SIZE, usedforsecurity=False).digest())
    dear = [each for each in hostile() if least_processor_s(each.refused) > HASHES * unit]
    costs = {each.name: least_processor_s(each.refused, times=30) / unit for each in dear}  # others share the caches
    assert {name: cost for name, cost in costs.items() if cost > HASHES} == {}


def test_half_surrogate_pairs_are_repaired_once_in_the_body_and_once_in_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repaired: list[int] = []
    repair = strict_json._without_half_pairs  # pyright: ignore[reportPrivateUsage]

    def counted(text: bytes) -> bytes | None:
        found = repair(text)
        repaired.append(0 if found is None else len(text))
        return found

    monkeypatch.setattr(strict_json, "_without_half_pairs", counted)
    bytes_of: dict[str, int] = {}
    for each in hostile():
        repaired.clear()
        each.refused()
        bytes_of[each.name] = sum(repaired)
    assert max(bytes_of.values()) > SIZE, "none of them is in need of it"
    assert {name: looked_at for name, looked_at in bytes_of.items() if looked_at > 2 * SIZE} == {}
