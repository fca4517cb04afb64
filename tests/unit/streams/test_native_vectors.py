"""The native core, without Python, makes of chunks what the Python fold makes of them now."""

from __future__ import annotations

from support.streams import fold_vectors
from support.wheels import WHERE_CARGO_BUILDS, in_native


def test_the_vectors_are_what_the_python_fold_exports() -> None:
    assert fold_vectors.PATH.read_text("utf-8") == fold_vectors.vectors(), "see tests/support/streams/fold_vectors.py"


@WHERE_CARGO_BUILDS
def test_the_core_passes_its_own_tests() -> None:
    tested = in_native("cargo", "test", "--locked", "--color", "never")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "test fold::vectors::every_chunk_comes_to_what_python_made_of_it ... ok" in tested.stdout
