"""``tools/native.py``: the install goes on without the native core where it cannot be built, unless it is required."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from support.wheels import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def run(folder: Path, *, builds: bool, **environment: str) -> tuple[int, str, list[str]]:
    """Exit code, what is said, and what uv was asked for."""
    uv, asked = folder / "uv", folder / "asked"
    uv.write_text(
        textwrap.dedent(f"""\
            #!/bin/sh
            echo "$@${{MATURIN_NO_INSTALL_RUST:+, without a toolchain}}" >> {asked}
            case "$*" in sync*native) {"exit 0" if builds else 'echo "error: no linker" >&2; exit 1'};; esac
        """)
    )
    uv.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name != "TASKBRIDGE_NATIVE_CORE"}
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "native.py"), "--group", "dev"],
        env={**kept, "UV": str(uv), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return ended.returncode, ended.stderr, asked.read_text("utf-8").splitlines()


def test_the_core_is_asked_for_after_everything_else(tmp_path: Path) -> None:
    wanted = ["run --group dev python -c ", "sync --quiet --inexact --group dev --group native"]
    assert run(tmp_path, builds=True) == (0, "", wanted)


def test_where_it_cannot_be_built_one_line_says_so_and_an_older_one_goes(tmp_path: Path) -> None:
    code, said, asked = run(tmp_path, builds=False)
    assert (code, asked[-1]) == (0, "pip uninstall --quiet taskbridge-native")
    assert said.startswith("without the native core, events are folded in Python")
    assert said.count("\n") == 1


def test_without_cargo_nothing_waits_for_a_toolchain_that_is_out_of_reach(tmp_path: Path) -> None:
    unreachable = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RUSTUP_UPDATE_ROOT": "http://127.0.0.1:9"}
    code, said, _ = run(tmp_path, builds=False, **unreachable)
    assert code == 0
    assert said.count("\n") == 1


def test_without_a_c_compiler_no_toolchain_is_fetched(tmp_path: Path) -> None:
    code, said, asked = run(tmp_path, builds=False, PATH="/nonexistent")
    assert code == 0
    assert said.endswith(": there is no C compiler (cc), which links it: install gcc\n")
    assert asked[-2] == "sync --quiet --inexact --group dev --group native, without a toolchain"


def test_where_it_is_required_it_is_a_failure_in_full(tmp_path: Path) -> None:
    code, said, _ = run(tmp_path, builds=False, TASKBRIDGE_NATIVE_CORE="required")
    assert (code, said) == (1, "error: no linker\n")


@pytest.mark.parametrize("builds", [True, False])
def test_where_it_is_off_it_is_not_tried(tmp_path: Path, builds: bool) -> None:  # noqa: FBT001
    code, _, asked = run(tmp_path, builds=builds, TASKBRIDGE_NATIVE_CORE="off")
    assert (code, asked) == (0, ["run --group dev python -c ", "pip uninstall --quiet taskbridge-native"])
