"""The native core, without Python, decides requests as the Python edge decides them now."""

from __future__ import annotations

from support.edge import vectors
from support.wheels import WHERE_CARGO_BUILDS, in_native


def test_the_vectors_are_what_the_python_edge_exports() -> None:
    assert vectors.PATH.read_text("utf-8") == vectors.vectors(), "see tests/support/edge/vectors.py"


@WHERE_CARGO_BUILDS
def test_the_core_passes_its_own_tests() -> None:
    tested = in_native("cargo", "test", "--locked", "--color", "never", "edge::")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    name = "whatever_the_core_takes_it_decides_as_python_does_and_it_takes_the_usual"
    assert f"test edge::vectors::{name} ... ok" in tested.stdout
