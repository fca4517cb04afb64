"""Commands of the documents, typed as they are written there, do what the documents say.

Two things differ from a newcomer's machine: ``up`` gets free ports, which the addresses in the text are changed to, and
all of it uses the tests' Kafka.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import http_clients, needs
from taskbridge.local.host import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from taskbridge.local.jvm import Endpoints

pytestmark = [
    pytest.mark.integration,
    pytest.mark.consumers,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("as_if_nothing_ran"),
]

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```(sh|text|toml)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PORTS: tuple[str, ...] = ("edge-port", "center-port", "streams-port", "kafka-port", "registry-port")
READS = ("curl ", "uv run taskbridge tail ", "uv run taskbridge set-aside list quarantine")
"""What only looks may be typed again until it shows what the text shows."""
UV = """#!/bin/sh
[ "$1" = sync ] && exit 0
shift
while [ "${1#--}" != "$1" ]; do shift; done
case "$1 $2" in
  "taskbridge up") set -- "$@" FLAGS ;;
  "python tools/native.py") exit 0 ;;
esac
exec "$@"
"""
"""As far as ``uv run`` is typed: what it would install is installed here."""
REFUSED = re.compile(r"[45]\d\d ")


@dataclass
class Step:
    typed: str
    shown: str = ""
    """The output in the text, with … for parts that differ."""

    @property
    def expected(self) -> re.Pattern[str]:
        parts = (re.escape(" ".join(each.split())) for each in self.shown.split("…"))
        return re.compile(".*".join(parts), re.DOTALL)


@dataclass
class Newcomer:
    """A new user in an empty folder, with a shell that has ``uv``."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, int]

    def type(self, step: Step) -> subprocess.CompletedProcess[str]:
        command = step.typed
        for port, name in ((8400, "edge-port"), (8500, "center-port")):
            command = command.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.ports[name]}")
        folder = ROOT if command.startswith("make ") else self.folder
        return subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def does(self, step: Step, eventually: Callable[..., object]) -> None:
        def shows() -> bool:
            done = self.type(step)
            output = " ".join(done.stdout.split())
            fits = done.returncode == bool(REFUSED.match(step.shown)) and bool(step.expected.search(output))
            assert fits or step.typed.startswith(READS), f"{step.typed}\n{done.stdout}\n{done.stderr}"
            return fits

        eventually(shows, what=f"{step.typed}\nshows\n{step.shown}")

    @contextmanager
    def runs(self, command: str) -> Generator[None]:
        """``up`` in a terminal of its own, until Ctrl-C."""
        ready = threading.Event()
        lines: list[str] = []
        with subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:

            def listen() -> None:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.append(line)
                    if line.startswith("ready"):
                        ready.set()
                ready.set()

            listening = threading.Thread(target=listen)
            listening.start()
            try:
                assert ready.wait(120)
                assert process.poll() is None, "".join(lines)
                yield
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)
                listening.join()


def steps(document: str) -> list[Step]:
    """The commands of a document, each block with the output that the next one shows; a file is typed with ``cat``."""
    found: list[Step] = []
    for _, language, block in BLOCK.findall(ROOT.joinpath(document).read_text("utf-8")):
        body = textwrap.dedent(block).strip()
        if language == "sh":
            found.append(Step(body))
        elif language == "text" and found:
            found[-1].shown = body
        elif language == "toml":
            file = "taskbridge-data/credentials.toml"
            found.append(Step(f"mkdir -p taskbridge-data\ncat > {file} <<'END'\n{body}\nEND"))
    return found


@pytest.fixture(scope="module")
def newcomer(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    needs.program("curl")
    folder = tmp_path_factory.mktemp("newcomer")
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    flags = " ".join(f"--{name} {port}" for name, port in ports.items())
    uv = folder / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(UV.replace("FLAGS", flags))
    uv.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKBRIDGE_")}
    environment |= {
        "PATH": f"{uv.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "TASKBRIDGE_SCHEMA_REGISTRY_URL": stack.registry_url,
    }
    return Newcomer(folder, environment, ports)


TUTORIAL = pytest.param("docs/tutorial.md", marks=pytest.mark.nightly)
"""It is the path of the README with more to look at."""


@pytest.mark.parametrize("document", ["README.md", TUTORIAL, "docs/how-to/add-a-source.md"])
def test_commands_of_a_document_do_what_it_says(
    newcomer: Newcomer, document: str, eventually: Callable[..., object]
) -> None:
    documented = steps(document)
    (start,) = (at for at, each in enumerate(documented) if each.typed.startswith("uv run taskbridge up"))
    assert len(documented) > start + 1
    for step in documented[:start]:
        newcomer.does(step, eventually)
    with newcomer.runs(documented[start].typed):
        for step in documented[start + 1 :]:
            newcomer.does(step, eventually)
        _no_metric_is_undocumented(newcomer)


@pytest.mark.usefixtures("connection")
def test_names_are_imported_as_the_document_says(newcomer: Newcomer, eventually: Callable[..., object]) -> None:
    documented = steps("docs/how-to/import-names.md")
    assert len(documented) == 5
    for step in documented:
        newcomer.does(step, eventually)


def _no_metric_is_undocumented(newcomer: Newcomer) -> None:
    reference = ROOT.joinpath("docs", "reference", "metrics.md").read_text("utf-8")
    for service in ("edge", "streams", "center"):
        text = http_clients.get(f"http://127.0.0.1:{newcomer.ports[f'{service}-port']}/metrics").text
        names = re.findall(
            rf"^# TYPE (taskbridge_{service}_\w+?)(?:_total)? (?!gauge$)\w+$|^# TYPE (taskbridge_{service}_\w+) gauge$",
            text,
            re.MULTILINE,
        )
        found = {counted or gauge for counted, gauge in names if not gauge.endswith("_created")}
        assert len(found) > 10
        assert [name for name in sorted(found) if f"- `{name}` (" not in reference] == []
