"""The Python packages: wheels and source distributions of all parts, and the wheels of the native core."""

from __future__ import annotations

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from release.source import PATH, UV, say

if TYPE_CHECKING:
    from release.source import Source

CORES = {
    "x86_64-unknown-linux-gnu": "manylinux_2_28",
    "aarch64-unknown-linux-gnu": "manylinux_2_28",
    "x86_64-apple-darwin": "pypi",
    "aarch64-apple-darwin": "pypi",
}
"""Target of Rust → what the wheel promises of the system. The services' other packages have wheels for these alone."""


def build(source: Source, out: Path) -> None:
    """Everything that ``pip install taskbridge-cli`` takes from us, and the versions that were tested."""
    members = source.pyproject["tool"]["uv"]["workspace"]["members"]
    say("wheels and source distributions")
    with ThreadPoolExecutor(2) as building:
        list(building.map(partial(_part, source, out), [each for each in members if each != "native"]))
    _without_core(source, out)
    for target in CORES:
        if (reason := _missing(source, target)) is not None:
            say(f"left out: the native core for {target}: {reason}")
        else:
            say(f"the native core for {target}: some minutes")
            _core(source, out, target)
    (out / ".gitignore").unlink(missing_ok=True)  # of uv build
    # Nothing of ours is published: an index must not answer with a newer one of that name.
    ours = "".join(f"taskbridge-{each.replace('deploy', 'cli')}=={source.version}\n" for each in sorted(members))
    (out / f"{source.name}-constraints.txt").write_text(constraints(source) + ours, "utf-8")


def constraints(source: Source) -> str:
    exported = ("export", "--quiet", "--no-hashes", "--no-emit-workspace", "--no-annotate", "--no-header")
    # mcp requires the last one; pyproject.toml leaves it out of a checkout, and pip installs it.
    return source.run(UV, *exported, "--package", "taskbridge-cli", "--all-extras") + "python-multipart==0.0.34\n"


def _part(source: Source, out: Path, folder: str) -> None:
    source.run(UV, "build", "--quiet", "--out-dir", out, source.tree / folder)


def _without_core(source: Source, out: Path) -> None:
    """The wheel for all other systems: installers choose it where no wheel of the core fits, and compile nothing."""
    project = without_core(source.tree / "native", source.tree / "build" / "without-core")
    pins = project / "constraints.txt"
    pins.write_text("\n".join(source.pyproject["tool"]["uv"]["build-constraint-dependencies"]), "utf-8")
    source.run(UV, "build", "--quiet", "--wheel", "--build-constraints", pins, "--out-dir", out, project)


def without_core(native: Path, project: Path) -> Path:
    """The project of that wheel: ``taskbridge-native`` as it is, built of its Python files only."""
    shutil.copytree(native / "python", project / "python", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("LICENSE", "README.md"):
        shutil.copy(native / name, project)
    text = (native / "pyproject.toml").read_text("utf-8")
    build_system = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    text, found = re.subn(r"(?ms)^\[build-system\]\n.*?\n(?=\n)", build_system, text)
    assert found == 1
    text += '\n[tool.hatch.build.targets.wheel]\npackages = ["python/taskbridge"]\n'
    (project / "pyproject.toml").write_text(text, "utf-8")
    return project


def _missing(source: Source, target: str) -> str | None:
    """Why the core cannot be built for a target, None if it can."""
    if shutil.which("cargo", path=PATH) is None:
        return "there is no Rust toolchain (https://rustup.rs)"
    library = Path(source.run("rustc", "--print", "sysroot").strip(), "lib", "rustlib", target)
    return None if library.exists() else f"rustup target add {target}"


def _core(source: Source, out: Path, target: str) -> None:
    """One wheel for all versions of Python; zig links it, for older C libraries than this machine's."""
    source.run("cargo", "fetch", "--quiet", "--locked", folder=source.tree / "native")
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    # Panics name their files: by the same names on every machine.
    named = {source.tree: "/taskbridge", **dict.fromkeys(cargo.glob("registry/src/*"), "/crates")}
    flags = "\x1f".join(f"--remap-path-prefix={path}={name}" for path, name in named.items())
    options = ("--release", "--locked", "--zig", "--target", target, "--compatibility", CORES[target])
    folder = source.tree / "build" / "core"
    source.run(
        *(sys.executable, "-m", "maturin", "build", *options, "--out", folder),
        folder=source.tree / "native",
        CARGO_TARGET_DIR=str(source.tree / "build" / "cargo"),
        CARGO_ENCODED_RUSTFLAGS=flags,
    )
    (wheel,) = folder.glob("*.whl")
    if "manylinux" in CORES[target]:
        fits = source.run(sys.executable, "-m", "auditwheel", "show", wheel)
        if f'"{CORES[target]}_' not in fits:
            sys.exit(f"{wheel.name} needs a newer C library:\n{fits}")
    source.run(sys.executable, "-m", "abi3audit", "--strict", wheel)
    shutil.move(wheel, out)
