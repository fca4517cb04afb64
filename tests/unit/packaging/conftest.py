from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.wheels import built, without_core

if TYPE_CHECKING:
    from pathlib import Path

SERVICES = ("edge", "streams", "center", "webhooks", "dingtalk", "feishu", "reconcile", "landing")
PARTS = ("schemas", "client", "runtime", *SERVICES, "cli", "local")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Part → its wheel."""
    with ThreadPoolExecutor(len(PARTS)) as building:
        made = building.map(partial(built, folder=tmp_path_factory.mktemp("wheels")), PARTS)
        return dict(zip(PARTS, made, strict=True))


@pytest.fixture(scope="session")
def everything(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What ``pip install taskbridge-cli`` installs of ours where no wheel of the native core fits."""
    return [without_core(tmp_path_factory.mktemp("without-core")), *wheels.values()]
