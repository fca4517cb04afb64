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

COMPILED = ("--compile-bytecode",)
"""A container cannot write bytecode, and would compile everything at each start and for each command."""

_NOT_NEEDED = ("taskbridge_client", "taskbridge_local")

# ``uv run`` says which uv it is: it need not be on the PATH.
UV = os.environ.get("UV", "uv")


def main(arguments: list[str], *, docker: tuple[str, ...] = ("docker",)) -> None:
    context = ROOT / "build" / "image"
    shutil.rmtree(context, ignore_errors=True)
    (context / "data").mkdir(parents=True)
    (context / "data" / ".keep").touch()
    build_wheels(context / "wheels")
    install(context / "app", wheels=context / "wheels")
    tag = () if {"-t", "--tag"} & set(arguments) else ("--tag", TAG)
    run(*docker, "build", "--file", str(IMAGE / "Dockerfile"), *tag, *arguments, str(context))


def build_wheels(wheels: Path) -> None:
    run(UV, "build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(wheels))


def install(app: Path, *, wheels: Path, checkout: Path = ROOT, options: tuple[str, ...] = COMPILED) -> None:
    """What the services need to run, in the versions that are pinned for all, and nothing else."""
    exported = (UV, "export", "--quiet", "--no-hashes", "--no-emit-workspace", "--package", "taskbridge-cli")
    # With the local stack comes a JVM.
    exported += ("--extra", "otel", "--prune", "taskbridge-local")
    pinned = subprocess.run(exported, check=True, capture_output=True, cwd=checkout).stdout
    into = (UV, "pip", "install", "--quiet", "--target", str(app), "--python-version", PYTHON, "--link-mode", "copy")
    into += options
    subprocess.run([*into, "--requirements", "-"], check=True, cwd=ROOT, input=pinned)
    # By their names: what is installed from a path would name that path. uv's cache may hold older ones.
    names = sorted({each.name.split("-")[0] for each in wheels.glob("taskbridge_*.whl")} - set(_NOT_NEEDED))
    run(*into, "--no-deps", "--no-cache", "--no-index", "--find-links", str(wheels), *names)


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    main(sys.argv[1:])
