"""Options that several commands share, and the connection that they describe."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.cli.connection import Connection

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Data folder of 'taskbridge up', or of an edge that runs alone. "
        "Default: TASKBRIDGE_DATA_DIR, else taskbridge-data."
    ),
]
BootstrapServers = Annotated[
    str | None, typer.Option(help="Address of Kafka. Default: from the environment, else of --data-dir.")
]
RegistryUrl = Annotated[
    str | None,
    typer.Option(help="URL of the registry's Confluent API. Default: from the environment, else of --data-dir."),
]
Credentials = Annotated[
    Path | None,
    typer.Option(help="Credentials file of the edge. Default: the one in --data-dir.", envvar="EDGE_CREDENTIALS_FILE"),
]
EdgeUrl = Annotated[str | None, typer.Option(help="Base URL of the edge. Default: the edge of --data-dir.")]
TIMES = "A day or a time, in China time unless it has a zone: 2026-09-01, 2026-09-01T08:00 or 2026-09-01T00:00:00Z."
"""The rule for all times in commands, which ``moment_of`` reads."""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


_LINE = TextWrapper(width=74, break_long_words=False, break_on_hyphens=False)
"""Of the help's 78 columns, those without the indentation and the end of a continued line."""
_URL_OPTIONS = {"edge": ("--url", 8400), "center": ("--center-url", 8500)}


@contextmanager
def operator_connection(
    bootstrap_servers: str | None, registry_url: str | None, data_dir: Path | None
) -> Generator[Connection]:
    """The connection of a command to Kafka and the registry.

    Logged errors go to standard error, except librdkafka's: its last error is in the command's own error line.

    Raises OperatorError if no address is given, and no bridge runs here.
    """
    from taskbridge.cli.connection import check_something_runs, find_connection
    from taskbridge.runtime.kafka import LIBRDKAFKA
    from taskbridge.runtime.logs import configure_logs

    configure_logs("text", "ERROR")
    LIBRDKAFKA.propagate = False
    connection = find_connection(bootstrap_servers, registry_url, data_dir=data_dir)
    try:
        check_something_runs(connection)
        yield connection
    finally:
        LIBRDKAFKA.propagate = True
        connection.close()


def service_url(service: str, given: str | None, data_dir: Path | None) -> str:
    """The URL of ``edge`` or ``center``: the option, else that of the running bridge, else the default port.

    Raises OperatorError if nothing listens there.
    """
    from taskbridge.cli import data_folder as folders
    from taskbridge.schemas.errors import OperatorError

    flag, port = _URL_OPTIONS[service]
    folder = folders.data_folder(data_dir)
    if given:
        return given
    if (running := folder.running()) is not None:
        return running.edge_url if service == "edge" else running.center_url
    if (folder.is_named and folder.is_bridges) or not folders.is_listened_on(port):
        raise OperatorError(f"{folder.nothing_runs()}, or set the address of another {service} with {flag}")
    return f"http://127.0.0.1:{port}"


def moment_of(text: str) -> int:
    """The time in ms; without a zone it is China time. Raises ConfigurationError if the text is no time."""
    from datetime import datetime

    from taskbridge.dingtalk.times import CHINA
    from taskbridge.schemas.errors import ConfigurationError

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--since {text} is not a day or time: write it as 2026-09-01") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=CHINA)).timestamp() * 1000)


def example(*lines: str) -> str:
    """The end of a command's help: each command runs as it is shown. One that a line lacks room for is continued."""
    commands = "\n".join(lines).replace(" \\\n", " ").split("\n")
    # \b keeps the lines as they are.
    return "\n".join(["Example:", "", "\b", *(" \\\n  ".join(_LINE.wrap(each)) for each in commands)])
