"""Runs every static check of the project, one after the other: ``python tools/checks.py``, or ``make check``."""

from __future__ import annotations

import subprocess
import sys

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("pyright",),
    ("lint-imports", "--no-logo"),
    ("deptry", "."),
    ("taskbridge", "schemas", "check"),
    ("python", "tools/pins.py", "--check"),
)


def main() -> None:
    """Exit code 1 when any check finds something; all are run either way."""
    failed: list[str] = []
    for command in CHECKS:
        sys.stdout.write(f"== {' '.join(command)}\n")
        sys.stdout.flush()
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(" ".join(command))
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
