"""Runs every static check of the project: ``python tools/checks.py``, or ``make check``.

Those of the native core need cargo with clippy and rustfmt. Where these are missing, that is printed, and the other
checks count.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKS = (
    ("pyright",),  # first: it takes longest, on one core
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("lint-imports", "--no-logo"),
    ("taskbridge", "schemas", "check"),
    ("python", "tools/pins.py", "--check"),
    ("python", "tools/reference.py", "--check"),
    ("typos",),  # spelling, and the words of typos.toml that plain English does without
)

ROOT = Path(__file__).parent.parent
SERVICES = ("edge", "streams", "center", "webhooks", "reconcile", "landing")
PARTS = ("schemas", "client", "runtime", *SERVICES, "dingtalk", "feishu", "deploy", "local")
NATIVE = ROOT / "native"
CLIPPY = ("cargo", "clippy", "--quiet", "--locked")
STRICTLY = ("--", "-D", "warnings")
RUST_CHECKS = (
    (("cargo", "fmt", "--check"), NATIVE),
    ((*CLIPPY, "--all-features", "--all-targets", *STRICTLY), NATIVE),
)


def main() -> None:
    """Exit code 1 when any check finds something; all are run either way, as many at a time as there are cores."""
    checks: list[tuple[tuple[str, ...], Path]] = [(command, ROOT) for command in CHECKS]
    checks += [(("deptry", "src"), ROOT / part) for part in PARTS]
    checks += RUST_CHECKS
    with ThreadPoolExecutor(os.cpu_count()) as running:
        failed = [each for each in running.map(failure, checks) if each]
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


def failure(check: tuple[tuple[str, ...], Path]) -> str:
    """The name of a check that failed; empty where it found nothing."""
    command, folder = check
    name = f"{' '.join(command)} in {folder.name}"
    if command[0] == "cargo" and not is_there(*command[:2]):
        sys.stdout.write(f"== {name}: not checked, there is no {' '.join(command[:2])} here\n")
        return ""
    done = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sys.stdout.write(f"== {name}\n{done.stdout}")
    sys.stdout.flush()
    return name if done.returncode else ""


def is_there(program: str, part: str) -> bool:
    try:
        return subprocess.run([program, part, "--version"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
