"""Installs this checkout, with the native core where it can be built: ``make native``.

maturin builds it, and brings a Rust toolchain where there is no cargo. Where neither can be had the core is left out,
in one line: the streams service then folds in Python. TASKBRIDGE_NATIVE_CORE decides otherwise: ``required`` fails,
``off`` does not try. Arguments go to ``uv``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

# ``uv run`` says which uv it is: it need not be on the PATH.
UV = os.environ.get("UV", "uv")
# rustup's own place is not on the PATH of a shell that is older than it.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path.home() / ".cargo" / "bin")])
RUSTUP = os.environ.get("RUSTUP_UPDATE_ROOT", "https://static.rust-lang.org/rustup")
REACH_S = 10
SHOWN_AFTER_S = 2


def main(arguments: list[str]) -> int:
    mode = os.environ.get("TASKBRIDGE_NATIVE_CORE", "")
    # Unlike ``uv sync`` it says nothing where nothing is to be done.
    installed = subprocess.run([UV, "run", *arguments, "python", "-c", ""], check=False).returncode
    if installed != 0:
        return installed
    if mode == "off":
        leave_out("TASKBRIDGE_NATIVE_CORE is off")
        return 0
    code, errors = build(arguments)
    if code == 0:
        return 0
    if mode == "required":
        sys.stderr.write(errors)
        return 1
    leave_out(reason(errors))
    return 0


def build(arguments: list[str]) -> tuple[int, str]:
    environment = {**os.environ, "PATH": PATH}
    if shutil.which("cc") is None or (shutil.which("cargo", path=PATH) is None and not is_reachable()):
        # Its own attempts would hold this up for minutes. What was built before is found all the same.
        environment["MATURIN_NO_INSTALL_RUST"] = "1"
    command = [UV, "sync", "--quiet", "--inexact", *arguments, "--group", "native"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as syncing:
        try:
            _, errors = syncing.communicate(timeout=SHOWN_AFTER_S)
        except subprocess.TimeoutExpired:
            sys.stderr.write("building the native core, once: it may take some minutes\n")
            _, errors = syncing.communicate()
    return syncing.returncode, errors


def is_reachable() -> bool:
    try:
        urllib.request.urlopen(f"{RUSTUP}/release-stable.toml", timeout=REACH_S).close()  # noqa: S310 - see above
    except OSError:
        return False
    return True


def reason(errors: str) -> str:
    """The line that says most."""
    if shutil.which("cc") is None:
        return "there is no C compiler (cc), which links it: install gcc"
    if shutil.which("cargo", path=PATH) is None:
        return "there is no Rust toolchain (https://rustup.rs), and none could be fetched"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()]
    return (told or lines or ["uv says nothing"])[-1]


def leave_out(why: str) -> None:
    # One of older sources must not stay.
    subprocess.run([UV, "pip", "uninstall", "--quiet", "taskbridge-native"], check=False, stderr=subprocess.DEVNULL)
    sys.stderr.write(f"without the native core, events are folded in Python, as right and far slower: {why}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
