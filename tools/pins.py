"""Keeps the pins in pyproject.toml: the exact version of every package that is installed or builds what is installed.

A lock file would name the registry's host, so the pins stand in ``tool.uv`` of ``pyproject.toml`` and no lock file is
committed. ``uv run python tools/pins.py`` resolves anew, without the old pins, and writes them. ``--check`` writes
nothing; exit code 1 when an installed package is not at its pin.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# ``uv run`` says which uv it is: it need not be on the PATH.
UV = os.environ.get("UV", "uv")
PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def pinned(pyproject: str) -> dict[str, str]:
    """Package → version, of what is installed."""
    pins = tomllib.loads(pyproject)["tool"]["uv"]["constraint-dependencies"]
    return dict(pin.split(" ;")[0].split("==", 1) for pin in pins)


def resolve(pyproject: str) -> str:
    """The same text with the newest versions that fit together, for every Python and platform that we support."""
    text = _with_pins(_with_pins(pyproject, "constraint-dependencies", []), "build-constraint-dependencies", [])
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "pyproject.toml")
        project.write_text(text, "utf-8")
        build = Path(folder, "build.in")
        build.write_text("\n".join(built_with(text)), "utf-8")
        text = _with_pins(
            text,
            "constraint-dependencies",
            _compile("--group", f"{project}:dev", "--group", f"{project}:docs", str(project)),
        )
        return _with_pins(text, "build-constraint-dependencies", _compile(str(build)))


def built_with(pyproject: str) -> list[str]:
    """What a build needs, with what brings a Rust toolchain where there is none."""
    found = tomllib.loads(pyproject)
    hook = found["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    return [*found["build-system"]["requires"], hook["toolchain"]]


def unpinned(pyproject: str) -> list[str]:
    """What is installed here and is not at its pinned version, as ``name==version``."""
    command = [UV, "pip", "freeze", "--exclude-editable"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    pins = pinned(pyproject)
    return [line for line in frozen if pins.get(line.split("==")[0]) != line.split("==")[1]]


def _compile(*sources: str) -> list[str]:
    command = [UV, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--no-annotate", "--no-header", *sources]
    compiled = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.strip().replace('"', "'") for line in compiled.splitlines() if "==" in line]


def _with_pins(pyproject: str, table: str, pins: list[str]) -> str:
    lines = "".join(f'    "{pin}",\n' for pin in pins)
    found = re.compile(rf"^{table} = \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)
    return found.sub(lambda _: f"{table} = [\n{lines}]\n", pyproject)


def main(arguments: list[str]) -> None:
    text = PYPROJECT.read_text("utf-8")
    if arguments == ["--check"]:
        found = unpinned(text)
        sys.exit(f"not at their pins: {', '.join(found)}; run: uv run python tools/pins.py" if found else 0)
    renewed = resolve(text)
    PYPROJECT.write_text(renewed, "utf-8")
    sys.stdout.write(f"{len(pinned(renewed))} packages pinned\n")


if __name__ == "__main__":
    main(sys.argv[1:])
