"""Builds the image of all services: ``make image``. Arguments go to ``docker build``.

uv run python tools/image.py --tag registry.example/taskbridge:1.0
uv run python tools/image.py --build-arg BASE=registry.example/python:3.11-slim
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "deploy" / "image"
PYTHON = "3.11"
"""Of the base: what is compiled is installed for this one."""
TAG = "taskbridge:latest"

_NOT_NEEDED = ("taskbridge_client-", "taskbridge_local-")

# ``uv run`` says which uv it is: it need not be on the PATH.
UV = os.environ.get("UV", "uv")


def main(arguments: list[str], *, docker: tuple[str, ...] = ("docker",)) -> None:
    context = ROOT / "build" / "image"
    shutil.rmtree(context, ignore_errors=True)
    (context / "data").mkdir(parents=True)
    (context / "data" / ".keep").touch()
    install(context / "app", wheels=context / "wheels")
    tag = () if {"-t", "--tag"} & set(arguments) else ("--tag", TAG)
    run(*docker, "build", "--file", str(IMAGE / "Dockerfile"), *tag, *arguments, str(context))


def install(app: Path, *, wheels: Path) -> None:
    """What the services need to run, in the versions that are pinned for all, and nothing else."""
    run(UV, "build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(wheels))
    exported = (
        UV,
        "export",
        "--quiet",
        "--no-hashes",
        "--no-emit-workspace",
        "--package",
        "taskbridge-cli",
        "--extra",
        "otel",
    )
    pinned = wheels / "requirements.txt"
    pinned.write_text(subprocess.run(exported, check=True, capture_output=True, text=True, cwd=ROOT).stdout, "utf-8")
    into = (UV, "pip", "install", "--quiet", "--target", str(app), "--python-version", PYTHON, "--link-mode", "copy")
    # A container cannot write bytecode, and would compile everything at each start and for each command.
    into += ("--compile-bytecode",)
    run(*into, "--requirements", str(pinned))
    run(
        *into,
        "--no-deps",
        *(str(each) for each in sorted(wheels.glob("*.whl")) if not each.name.startswith(_NOT_NEEDED)),
    )


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    main(sys.argv[1:])
