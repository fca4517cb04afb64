"""A room of the code can be taken in at a glance: a dozen modules beside its sub-rooms, of 250 lines or fewer.

A module that is longer says in its first line why it is one.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
MODULES = [
    module
    for part in ("schemas", "client", "runtime", "edge", "streams", "native", "reconcile", "deploy")
    for module in (ROOT / part / "src").rglob("*")
    if module.suffix in (".py", ".rs") and module.name != "__init__.py"
]
MOST_MODULES, MOST_LINES = 12, 250
REASONS = ("one module", "one class")
"""What the reason begins with."""


def test_no_room_has_more_than_a_dozen_modules() -> None:
    """But the native core: each of its modules mirrors one of Python, and those have their rooms."""
    rooms = Counter(module.parent.relative_to(ROOT) for module in MODULES if module.suffix == ".py")
    assert rooms, "or nothing was looked at"
    assert {str(room): count for room, count in rooms.items() if count > MOST_MODULES} == {}


def test_no_module_is_long_without_a_reason_in_its_first_line() -> None:
    texts = {str(module.relative_to(ROOT)): module.read_text("utf-8").splitlines() for module in MODULES}
    long = {name: len(lines) for name, lines in texts.items() if len(lines) > MOST_LINES}
    assert {name: count for name, count in long.items() if not any(each in texts[name][0] for each in REASONS)} == {}
