"""Unsigned requests cost little: only compiled code reads them, and they are hashed a bounded number of times."""

from __future__ import annotations

import hashlib

import pytest

from support.edge.expensive import SIZE, Hostile, hostile
from taskbridge.edge.parsing import strict_json

MOST_HASHES = 4.5
"""In four ways at most; what is GBK takes a half more as UTF-8. ``tests/bench/unproven.py`` measures what all of it
costs."""


@pytest.mark.parametrize("request_", hostile(), ids=lambda each: each.name)
def test_what_is_not_proven_never_reaches_the_parser_that_makes_values(
    request_: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(_: str) -> None:
        raise AssertionError("it is parsed whole before it is proven")

    monkeypatch.setattr(strict_json, "parse", unexpected)
    assert request_.refused() == request_.reason


@pytest.fixture(name="hashed")
def hashed_fixture(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call hashes with MD5."""
    sizes: list[int] = []
    real = hashlib.md5

    def counted(content: bytes = b"", *, usedforsecurity: bool = True) -> object:
        sizes.append(len(content))
        return real(content, usedforsecurity=usedforsecurity)

    monkeypatch.setattr(hashlib, "md5", counted)
    return sizes


def test_an_unproven_request_is_hashed_a_bounded_number_of_times(hashed: list[int]) -> None:
    times: dict[str, float] = {}
    for each in hostile():
        hashed.clear()
        each.refused()
        times[each.name] = sum(hashed) / SIZE
    assert max(times.values()) > 4, "none of them is hashed for each way to read it"
    assert {name: hashes for name, hashes in times.items() if hashes > MOST_HASHES} == {}


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
