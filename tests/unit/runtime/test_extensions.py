"""What installed distributions add is found by entry points, and a wrong one is a line that an operator understands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from taskbridge.runtime import extensions
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GROUP = "taskbridge.test_group"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution with one entry point, and the module that it names."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(distribution: str, name: str, target: str, source: str | None) -> None:
        folder = tmp_path / f"{distribution.replace('-', '_')}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {target}\n")
        if source is not None:
            module = target.partition(":")[0]
            (tmp_path / f"{module}.py").write_text(source)
            monkeypatch.delitem(sys.modules, module, raising=False)

    return made


def test_what_an_entry_point_names_is_loaded(install: Callable[..., None]) -> None:
    install("acme-one", "one", "acme_one:value", "value = 1")
    install("acme-two", "two", "acme_two:value", "value = 2")
    assert extensions.load(GROUP, "one") == 1
    assert (extensions.names(GROUP), extensions.load_all(GROUP)) == (["one", "two"], [1, 2])


def test_a_name_that_nothing_installed_has_is_refused_with_those_that_are(install: Callable[..., None]) -> None:
    install("acme-one", "known", "acme_known:value", "value = 1")
    with pytest.raises(ConfigurationError, match=f"^other is not installed \\(installed for {GROUP}: known\\)$"):
        extensions.load(GROUP, "other")


@pytest.mark.parametrize(
    ("target", "source", "problem"),
    [
        ("acme_missing:value", None, "ModuleNotFoundError"),
        ("acme_empty:value", "", "AttributeError"),
        ("acme_raises:value", "raise RuntimeError('at import')", "RuntimeError: at import"),
    ],
)
def test_one_that_cannot_be_loaded_names_its_distribution(
    install: Callable[..., None], target: str, source: str | None, problem: str
) -> None:
    install("acme", "broken", target, source)
    with pytest.raises(ConfigurationError) as refused:
        extensions.load(GROUP, "broken")
    text = str(refused.value)
    assert text.startswith(f"broken of {GROUP} cannot be loaded: ")
    assert problem in text
    assert text.endswith("correct or uninstall acme")
    assert "\n" not in text


def test_two_distributions_with_one_name_are_refused(install: Callable[..., None]) -> None:
    install("acme-one", "same", "acme_same:value", "value = 1")
    install("acme-two", "same", "acme_same:value", None)
    with pytest.raises(ConfigurationError, match="acme-one and acme-two: uninstall one"):
        extensions.load(GROUP, "same")
