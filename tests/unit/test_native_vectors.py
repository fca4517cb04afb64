"""The native core, without Python, has the results of the Python implementations for the exported vectors."""

from __future__ import annotations

import pytest

from support.edge import vectors as edge_vectors
from support.streams import fold_vectors
from support.wheels import WHERE_CARGO_BUILDS, in_native


def test_the_vectors_of_the_fold_are_up_to_date() -> None:
    assert fold_vectors.PATH.read_text("utf-8") == fold_vectors.vectors(), "see tests/support/streams/fold_vectors.py"


def test_the_vectors_of_the_edge_are_up_to_date() -> None:
    assert edge_vectors.PATH.read_text("utf-8") == edge_vectors.vectors(), "see tests/support/edge/vectors.py"


# cargo may have to compile first, while the other tests keep the cores busy.
@pytest.mark.timeout(0)
@WHERE_CARGO_BUILDS
def test_the_core_passes_its_own_tests() -> None:
    tested = in_native("cargo", "test", "--locked", "--color", "never")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for name in (
        "edge::vectors::usual_requests_are_accepted_and_decided_as_in_python",
        "fold::vectors::every_chunk_has_the_result_of_python",
    ):
        assert f"test {name} ... ok" in tested.stdout
