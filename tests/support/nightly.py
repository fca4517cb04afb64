"""Cases that `make nightly` adds to what the other runs prove with one case."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _pytest.mark import ParameterSet

Case = TypeVar("Case")


def one_of_each(cases: Iterable[Case], kind: Callable[[Case], object]) -> list[Case | ParameterSet]:
    """All cases; those that are not the first of their kind run nightly."""
    seen: set[object] = set()
    found: list[Case | ParameterSet] = []
    for case in cases:
        found.append(pytest.param(case, marks=pytest.mark.nightly) if kind(case) in seen else case)
        seen.add(kind(case))
    return found
