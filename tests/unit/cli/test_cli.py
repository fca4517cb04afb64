"""The program's surface: every command explains itself with an example, and errors are one readable line."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock

import pytest
import typer
from click.testing import CliRunner as CommandRunner
from typer.testing import CliRunner

from support.forked import taskbridge
from taskbridge.center.app import run as run_center
from taskbridge.cli.program import app, main
from taskbridge.cli.set_aside import ALIASES
from taskbridge.runtime.process import only_one_in
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams.app import run as run_streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from click import Group

TOKEN = "TESTTOKEN"
SOURCE_FLAGS = ("--url", "http://127.0.0.1:1", "--source", "flow", "--secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
NO_KAFKA = (
    "taskbridge: Kafka at 127.0.0.1:9 does not answer (127.0.0.1:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: "
)


@cache
def program() -> Group:
    """Made once: it takes some 50 ms, and each command has several tests."""
    return cast("Group", typer.main.get_command(app))


def commands() -> list[list[str]]:
    found: list[list[str]] = []
    for name, command in program().commands.items():
        group: Any = command
        inner = getattr(group, "commands", {})
        found += [[name]] if not inner or group.invoke_without_command else []
        found += [[name, each] for each in inner]
    return found


def run_alone(*arguments: str) -> tuple[int, str]:
    """How the program ends, in a process of its own, and what it says on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "taskbridge.cli", *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stderr


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The same, in this process: starting one takes half a second."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["taskbridge", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        # A text instead of a number: the interpreter prints it and ends with 1.
        assert isinstance(ended.value.code, str)
        return 1, f"{capfd.readouterr().err}{ended.value.code}\n"

    return run


def test_the_commands_of_the_contract_exist() -> None:
    wanted = ["demo", "up", "edge", "streams", "center", "webhooks", "send", "sign", "tail"]
    assert [[each] for each in wanted if [each] not in commands()] == []
    assert [
        each for each in (["topics", "apply"], ["schemas", "register"], ["schemas", "check"]) if each not in commands()
    ] == []
    assert [each for each in ("list", "show", "replay") if ["set-aside", each] not in commands()] == []


@pytest.mark.parametrize("alias", ALIASES)
def test_the_old_name_of_a_command_is_its_present_one(alias: str) -> None:
    shown = [
        CliRunner().invoke(app, [*words, "--help"]).stdout
        for words in (alias.split(), ("set-aside", *ALIASES[alias][:1]))
    ]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    result = CommandRunner().invoke(program(), [*command, "--help"], prog_name="taskbridge")
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"taskbridge {' '.join(command)}" in result.output
    assert "[[" not in result.output


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_an_example_that_is_pasted_runs_as_shown(command: list[str]) -> None:
    shown = CommandRunner().invoke(program(), [*command, "--help"], prog_name="taskbridge").output
    lines = textwrap.dedent(shown.partition("Example:\n\n")[2]).splitlines()
    assert max(map(len, lines)) <= 78
    for pasted in "\n".join(lines).replace("\\\n", "").splitlines():
        words = shlex.split(pasted)
        first = next(word for word in words if not re.match(r"[A-Z_]+=", word))
        assert [first, *words[words.index(first) + 1 :][: len(command)]] == ["taskbridge", *command], pasted


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_has_the_options_that_its_help_names(command: list[str]) -> None:
    found: Any = program()
    for name in command:
        found = found.commands[name]
    flags = {each for parameter in found.params for each in (*parameter.opts, *parameter.secondary_opts)}
    said = " ".join([found.help, *(getattr(each, "help", None) or "" for each in found.params)])
    assert set(re.findall(r"--[a-z][a-z-]+", said)) <= flags | {"--help"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "delete", "--token", TOKEN),
        ("status", "--once"),
        ("tail", "t"),
        ("topics", "apply"),
        ("topics", "acls", "--apply"),
        ("schemas", "register"),
        ("quarantine", "list"),
        ("dlq", "list"),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_a_command_that_finds_no_bridge_says_how_to_start_one(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # Nothing listens on the default ports of a bridge, even if this machine runs one.
    monkeypatch.setattr("taskbridge.cli.data_folder.is_listened_on", Mock(return_value=False))
    monkeypatch.setattr("taskbridge.runtime.partition_reader._METADATA_S", 0.5)
    for named, says in (
        ((), "no bridge runs here; start it with 'taskbridge up'"),
        (("--data-dir", "other"), "no bridge runs in other; start it with 'taskbridge up --data-dir other'"),
    ):
        monkeypatch.setattr(sys, "argv", ["taskbridge", *arguments, *named])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code not in (0, 2)
        said = "".join([*capfd.readouterr(), str(ended.value.code)])
        assert says in said
        assert "Errno" not in said


def test_sign_prints_what_is_signed_with_the_token_masked() -> None:
    arguments = ["sign", "--token", TOKEN, "-p", "corpId=ding1", "-p", "appType=APP_1", "-p", "sign=old", "--json"]
    result = CliRunner().invoke(app, arguments)
    # The digest is md5("APP_1" "ding1" "TESTTOKEN"), as md5sum prints it.
    assert json.loads(result.output) == {
        "sign": "0a32735262fc24f232651cdac468573b",
        "canonical": "APP_1ding1***",
        "key_order": ["appType", "corpId"],
    }
    assert TOKEN not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["sign", "--token", TOKEN, "-p", "novalue"],
        ["sign", "--token", TOKEN, "-p", "a=1", "-p", "a=2"],
        ["sign", "--token", " ", "-p", "a=1"],
        ["send", "approve", "--url", "http://127.0.0.1:1", "--token", TOKEN],
        ["send", "create", "--url", "http://127.0.0.1:1", "--token", TOKEN, "--encoding", "xml"],
        ["send", "create", "--url", "http://127.0.0.1:1"],
        ["send", "create", "--url", "http://127.0.0.1:1", "--source", "flow"],
        ["send", "create", "--url", "http://127.0.0.1:1", "--source", "flow", "--secret", TOKEN],
        ["tail"],
        ["quarantine", "show"],
        ["quarantine", "replay"],
        ["up", "--kafka-port", "99999"],
        ["demo", "--edge-port", "0"],
        ["sign", "--token", TOKEN, "--task-file", sys.executable],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("send", "delete", "--url", "http://127.0.0.1:9", "--token", TOKEN), "taskbridge: the edge at http://127"),
        (("send", "delete", "--url", "nonsense", "--token", TOKEN), "taskbridge: the edge at nonsense"),
        (("send", "delete", *SOURCE_FLAGS), "taskbridge: the edge at http://127.0.0.1:1"),
        (("tail", "t", "--bootstrap-servers", "127.0.0.1:9"), NO_KAFKA),
        (("quarantine", "list", "--bootstrap-servers", "127.0.0.1:9"), NO_KAFKA),
        (
            ("quarantine", "replay", "--all", "--credentials", "/nowhere"),
            "taskbridge: credentials file /nowhere: No such file or directory",
        ),
        (
            ("schemas", "register", "--registry-url", "http://127.0.0.1:9"),
            "taskbridge: the schema registry at http://127.0.0.1:9 does not",
        ),
        (
            ("up", "--data-dir", "/nowhere", "--edge-port", "18400", "--streams-port", "18400"),
            "taskbridge: --edge-port and --streams-port are both 18400: choose different ports",
        ),
        # As it was before the center had a port of its own.
        (
            ("up", "--data-dir", "/nowhere", "--streams-port", "8500"),
            "taskbridge: --center-port and --streams-port are both 8500: choose different ports",
        ),
        (
            ("up", "--credentials", "/nowhere/c.toml"),
            "taskbridge: credentials file /nowhere/c.toml does not exist: check --credentials",
        ),
        (
            ("tail", "t", "--data-dir", "/nowhere"),
            "taskbridge: no bridge runs in /nowhere; start it with 'taskbridge up --data-dir",
        ),
    ],
)
def test_errors_are_one_readable_line(
    run: Callable[..., tuple[int, str]], arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.runtime.partition_reader._METADATA_S", 0.5)
    assert_one_readable_line(run(*arguments), says)


def test_a_process_that_fails_prints_one_line() -> None:
    assert_one_readable_line(run_alone("topics", "apply", "--bootstrap-servers", "127.0.0.1:9"), NO_KAFKA)


@pytest.mark.parametrize("service", ["edge", "streams", "center"])
def test_a_service_without_kafkas_address_prints_one_line(service: str) -> None:
    ended = taskbridge(service, environment={})
    says = f"{service.upper()}_KAFKA_BOOTSTRAP_SERVERS: is required"
    assert_one_readable_line((ended.returncode, ended.stderr), says)


def assert_one_readable_line(ended: tuple[int, str], says: str) -> None:
    code, err = ended
    assert code == 1
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert ".. " not in err


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    said = result.output.splitlines()
    assert said[:2] == [f"taskbridge {version('taskbridge-cli')}", "commit unknown: built from a checkout"]
    is_there = find_spec("taskbridge.native") is not None
    assert said[2].startswith(f"native core {version('taskbridge-cli') if is_there else 'not installed: '}")


def test_a_data_folder_belongs_to_one_worker(tmp_path: Path) -> None:
    environment = {
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "STREAMS_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9",
        "STREAMS_DATA_DIR": str(tmp_path),
    }
    with only_one_in(tmp_path, "worker.lock", setting="-"), pytest.raises(ConfigurationError) as refused:
        run_streams(environment)
    assert str(refused.value) == f"another process uses STREAMS_DATA_DIR={tmp_path}. Give each process its own folder"
    with pytest.raises(ConfigurationError, match=r"STREAMS_DATA_DIR=.* cannot be written: File exists"):
        run_streams({**environment, "STREAMS_DATA_DIR": __file__})


def test_a_task_center_without_tokens_listens_on_loopback_only(tmp_path: Path) -> None:
    environment = {
        "CENTER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "CENTER_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9",
        "CENTER_DATA_DIR": str(tmp_path),
        "CENTER_HOST": "0.0.0.0",  # noqa: S104
    }
    with pytest.raises(ConfigurationError, match="CENTER_API_TOKENS_FILE"):
        run_center(environment)


def test_the_lists_of_a_stopped_bridge_are_dropped_in_its_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    up = Path("taskbridge-data")
    (up / "edge").mkdir(parents=True)
    monkeypatch.setenv("CENTER_DATA_DIR", str(up / "center"))
    assert CliRunner().invoke(app, ["center", "--migrate"]).exit_code == 0
    monkeypatch.delenv("CENTER_DATA_DIR")
    monkeypatch.setenv("TASKBRIDGE_DATA_DIR", str(up))
    done = CliRunner().invoke(app, ["center", "--rebuild"])
    assert (done.exit_code, done.output.startswith("The lists are dropped.")) == (0, True), done.exception
    assert [each.name for each in tmp_path.iterdir()] == ["taskbridge-data"]


INTERRUPTED = """
import os, signal, sys
sys.argv[0], loaded = "taskbridge", sys.argv.pop(1)
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == loaded:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from taskbridge.cli.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "loaded",
    [
        "taskbridge.cli.program",
        "typer",
        "taskbridge.schemas.errors",
        "taskbridge.edge.sender",
        "taskbridge.cli.connection",
    ],
)
def test_ctrl_c_during_loading_ends_without_output(loaded: str) -> None:
    command = ["send", "delete", "--url", "http://127.0.0.1:9", "--token", TOKEN]
    if loaded == "taskbridge.cli.connection":
        command = ["topics", "apply", "--bootstrap-servers", "127.0.0.1:9"]
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, loaded, *command], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode in (-signal.SIGINT, 130)
    assert (ended.stdout, ended.stderr) == ("", "")
