"""Renews the checksums of Kafka's and the registry's jars: ``uv run python tools/jar_sums.py``.

What Maven delivers today for pom.xml is written down, each file proven by the registry's own checksum only: review it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from taskbridge.local.artifacts import SUMS_PATH, copy_dependencies, sums_of
from taskbridge.schemas.errors import ConfigurationError


def progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> None:
    log_path = Path(tempfile.gettempdir(), "taskbridge-maven.log")
    with tempfile.TemporaryDirectory() as downloads:
        try:
            copy_dependencies(Path(downloads), log_path=log_path, progress=progress)
        except ConfigurationError as error:
            sys.exit(str(error))
        sums = sums_of(Path(downloads))
    listing = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    SUMS_PATH.write_text(f"# What pom.xml resolves to. Refreshed by: python tools/jar_sums.py\n{listing}")


if __name__ == "__main__":
    main()
