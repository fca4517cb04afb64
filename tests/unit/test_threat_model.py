"""Every test that the threat model names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tests_that_the_threat_model_names_exist() -> None:
    named = set(re.findall(r"\btest_\w+", (ROOT / "docs" / "threat-model.md").read_text("utf-8")))
    files = list((ROOT / "tests").rglob("test_*.py"))
    known = {path.stem for path in files}
    for path in files:
        known |= set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    assert len(named) > 40
    assert named - known == set()
