"""``tools/native.py`` installs without the native core where it cannot be built, unless it is required."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from support.wheels import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def run(folder: Path, *, builds: bool, **environment: str) -> tuple[int, str, list[str]]:
    """Exit code, output, and the commands that uv was given."""
    uv, commands = folder / "uv", folder / "commands"
    uv.write_text(
        textwrap.dedent(f"""\
            #!/bin/sh
            echo "$@${{MATURIN_NO_INSTALL_RUST:+, without a toolchain}}" >> {commands}
            case "$*" in sync*native) {"exit 0" if builds else 'echo "error: no linker" >&2; exit 1'};; esac
        """)
    )
    uv.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if name != "TASKBRIDGE_NATIVE_CORE"}
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "native.py"), "--group", "dev"],
        env={**inherited, "UV": str(uv), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return ended.returncode, ended.stderr, commands.read_text("utf-8").splitlines()


def test_the_core_is_installed_after_everything_else(tmp_path: Path) -> None:
    expected = ["run --group dev python -c ", "sync --quiet --inexact --group dev --group native"]
    assert run(tmp_path, builds=True) == (0, "", expected)


def test_where_it_cannot_be_built_one_line_reports_it_and_an_older_core_is_removed(tmp_path: Path) -> None:
    code, output, commands = run(tmp_path, builds=False)
    assert (code, commands[-1]) == (0, "pip uninstall --quiet taskbridge-native")
    assert output.startswith("without the native core, callbacks and events are processed in Python")
    assert output.count("\n") == 1


def test_without_a_c_compiler_no_toolchain_is_fetched(tmp_path: Path) -> None:
    code, output, commands = run(tmp_path, builds=False, PATH="/nonexistent")
    assert code == 0
    assert output.endswith(": there is no C compiler (cc) to link it: install gcc\n")
    assert commands[-2] == "sync --quiet --inexact --group dev --group native, without a toolchain"


def test_where_it_is_required_the_whole_error_is_shown(tmp_path: Path) -> None:
    code, output, _ = run(tmp_path, builds=False, TASKBRIDGE_NATIVE_CORE="required")
    assert (code, output) == (1, "error: no linker\n")
