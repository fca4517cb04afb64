"""Builds the native core with cargo when the project is installed, and puts it beside ``native/_native.pyi``.

Where there is no fit cargo, ``puccinialin`` brings one into the user's cache, as it does for maturin. Where that fails
too, the project is installed without: the streams service then folds in Python, and says so. TASKBRIDGE_NATIVE_CORE
decides otherwise: ``required`` fails, ``off`` does not try.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# rustup's own place is not on the PATH of a shell that is older than it.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path.home() / ".cargo" / "bin")])
_MODE = os.environ.get("TASKBRIDGE_NATIVE_CORE", "")
_REACH_S = 10
_LIBRARIES = {"win32": ("_native.dll", "_native.pyd"), "darwin": ("lib_native.dylib", "_native.abi3.so")}
_LIBRARY, _MODULE = _LIBRARIES.get(sys.platform, ("lib_native.so", "_native.abi3.so"))


class NativeCore(BuildHookInterface[Any]):
    """For wheels and editable installs; a source distribution carries the sources."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the build itself needs: asked before ``initialize``."""
        if _MODE == "off" or self._cargo_is_fit():
            return []
        return [self.config["toolchain"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        module = Path(self.root, "streams", _MODULE)
        # One of older sources must not stay where this build fails.
        module.unlink(missing_ok=True)
        if self.target_name != "wheel" or _MODE == "off":
            return
        try:
            shutil.copy2(self._build(), module)
        except Exception as error:
            if _MODE == "required":
                raise
            self.app.display_warning(f"the native core is not built: {error}")
            return
        if version != "editable":
            platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{platform}"
            build_data["force_include"][str(module)] = f"streams/{_MODULE}"

    def _build(self) -> Path:
        environment = dict(os.environ, PATH=_PATH)
        if not self._cargo_is_fit():
            from puccinialin import setup_rust  # noqa: PLC0415 - installed only where it is needed

            # Where it is out of reach, rustup's own attempts would hold the install up for minutes.
            root = os.environ.get("RUSTUP_UPDATE_ROOT", "https://static.rust-lang.org/rustup")
            urllib.request.urlopen(f"{root}/release-stable.toml", timeout=_REACH_S).close()  # noqa: S310 - see above
            environment |= setup_rust()
        crate = Path(self.root, "streams", "native")
        cargo = shutil.which("cargo", path=environment["PATH"]) or "cargo"
        built = subprocess.run(
            [cargo, "build", "--release", "--quiet"],
            cwd=crate,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if built.returncode != 0:
            raise RuntimeError(f"cargo failed:\n{built.stderr}")
        return Path(environment.get("CARGO_TARGET_DIR", crate / "target"), "release", _LIBRARY)

    def _cargo_is_fit(self) -> bool:
        """Whether there is a cargo, and of a version that the crate can be built with."""
        cargo = shutil.which("cargo", path=_PATH)
        if cargo is None:
            return False
        told = subprocess.run([cargo, "--version"], check=False, capture_output=True, text=True).stdout
        crate = Path(self.root, "streams", "native", "Cargo.toml").read_text("utf-8")
        wanted = re.search(r'^rust-version = "(\d+)\.(\d+)"', crate, re.MULTILINE)
        found = re.search(r"(\d+)\.(\d+)", told)
        if found is None or wanted is None:
            return False
        return [int(each) for each in found.groups()] >= [int(each) for each in wanted.groups()]
