"""Runs every static check of the project, one after the other: ``python tools/checks.py``, or ``make check``.

Those of the native core need cargo with clippy and rustfmt; where these are not, that is said, and the others count.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("pyright",),
    ("lint-imports", "--no-logo"),
    ("taskbridge", "schemas", "check"),
    ("python", "tools/pins.py", "--check"),
    ("python", "tools/reference.py", "--check"),
)

ROOT = Path(__file__).parent.parent
PARTS = ("schemas", "client", "runtime", "edge", "streams", "reconcile", "deploy")
NATIVE = ROOT / "native"
CLIPPY = ("cargo", "clippy", "--quiet", "--locked")
STRICTLY = ("--", "-D", "warnings")
RUST_LOOP = ROOT / "tests" / "bench" / "streams" / "rust_loop"
RUST_CHECKS = (
    (("cargo", "fmt", "--check"), NATIVE),
    ((*CLIPPY, "--all-features", "--all-targets", *STRICTLY), NATIVE),
    (("cargo", "fmt", "--check"), RUST_LOOP),
    # Without the clients, which take a quarter of an hour to compile; beside the core, where what both need is.
    ((*CLIPPY, "--no-default-features", "--target-dir", str(NATIVE / "target"), *STRICTLY), RUST_LOOP),
)


def main() -> None:
    """Exit code 1 when any check finds something; all are run either way."""
    failed = [" ".join(command) for command in CHECKS if not passes(command, ROOT)]
    failed += [f"deptry of {part}" for part in PARTS if not passes(("deptry", "src"), ROOT / part)]
    for command, folder in RUST_CHECKS:
        if not is_there(*command[:2]):
            sys.stdout.write(f"== {' '.join(command)}: not checked, there is no {' '.join(command[:2])} here\n")
        elif not passes(command, folder):
            failed.append(" ".join(command))
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


def passes(command: tuple[str, ...], folder: Path) -> bool:
    sys.stdout.write(f"== {' '.join(command)}\n")
    sys.stdout.flush()
    return subprocess.run(command, cwd=folder, check=False).returncode == 0


def is_there(program: str, part: str) -> bool:
    try:
        return subprocess.run([program, part, "--version"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
