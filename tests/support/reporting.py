"""Lines of a test that a reader of the run sees, also where the test passes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest
    from _pytest.capture import CaptureManager


def show(config: pytest.Config, lines: Iterable[str]) -> None:
    capture = cast("CaptureManager", config.pluginmanager.getplugin("capturemanager"))
    with capture.global_and_fixture_disabled():
        sys.stdout.write("\n" + "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
