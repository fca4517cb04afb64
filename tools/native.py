"""Installs this checkout, with the native core where it can be built: ``make native``.

maturin builds the core, and fetches a Rust toolchain where cargo is missing. Where the core cannot be built, one line
reports it, and both services run in Python. With TASKBRIDGE_NATIVE_CORE=required that is an error; with ``off`` nothing
is built. Arguments go to ``uv``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

# ``uv run`` sets UV, which need not be on the PATH.
UV = os.environ.get("UV", "uv")
# A shell that was started before rustup was installed has no PATH entry for it.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path.home() / ".cargo" / "bin")])
RUSTUP = os.environ.get("RUSTUP_UPDATE_ROOT", "https://static.rust-lang.org/rustup")
CONNECT_TIMEOUT_S = 10
SHOWN_AFTER_S = 2


def main(arguments: list[str]) -> int:
    mode = os.environ.get("TASKBRIDGE_NATIVE_CORE", "")
    # Unlike ``uv sync``, this prints nothing where nothing changes.
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
        # maturin would try for minutes to fetch a toolchain. A core that was built before is still found.
        environment["MATURIN_NO_INSTALL_RUST"] = "1"
    command = [UV, "sync", "--quiet", "--inexact", *arguments, "--group", "native"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as syncing:
        try:
            _, errors = syncing.communicate(timeout=SHOWN_AFTER_S)
        except subprocess.TimeoutExpired:
            sys.stderr.write("building the native core: the first build takes some minutes\n")
            _, errors = syncing.communicate()
    return syncing.returncode, errors


def is_reachable() -> bool:
    try:
        urllib.request.urlopen(f"{RUSTUP}/release-stable.toml", timeout=CONNECT_TIMEOUT_S).close()  # noqa: S310 - see above
    except OSError:
        return False
    return True


def reason(errors: str) -> str:
    """The most informative line."""
    if shutil.which("cc") is None:
        return "there is no C compiler (cc) to link it: install gcc"
    if shutil.which("cargo", path=PATH) is None:
        return "there is no Rust toolchain (https://rustup.rs), and none could be fetched"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    with_error = [line for line in lines if "error" in line.lower()]
    return (with_error or lines or ["uv printed no error"])[-1]


def leave_out(why: str) -> None:
    # A core of older sources must not remain.
    subprocess.run([UV, "pip", "uninstall", "--quiet", "taskbridge-native"], check=False, stderr=subprocess.DEVNULL)
    effect = "callbacks and events are processed in Python, with the same results but far slower"
    sys.stderr.write(f"without the native core, {effect}: {why}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
