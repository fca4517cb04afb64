"""What wrk counts is a figure only if every answer was a right one; a slow one is."""

from __future__ import annotations

import json
from subprocess import CompletedProcess
from typing import Any

import pytest
from tests.bench import wrk as module
from tests.bench.command import NotCounted
from tests.bench.wrk import wrk

COUNTED = {"requests": 7, "microseconds": 3_000_000, "refused": 0, "unconnected": 0, "broken": 0, "late": 0}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fake wrk that prints ``COUNTED``, changed; returns the arguments of its runs."""

    def runs(**counted: int) -> list[str]:
        commands: list[str] = []

        def completed(argv: list[str], **_settings: object) -> CompletedProcess[str]:
            commands.extend(argv)
            return CompletedProcess(argv, 0, f"Running\nRESULT {json.dumps(COUNTED | counted)}\n", "")

        monkeypatch.setattr(module.subprocess, "run", completed)
        assert wrk("http://127.0.0.1:1/x", ["file"], who="go, create", connections=64, seconds=3) == COUNTED | counted
        return commands

    return runs


def test_an_answer_may_take_longer_than_the_loop(run: Any) -> None:
    argv = run()
    seconds = {each for each in argv if each.startswith("--timeout=")}
    assert seconds == {"--timeout=33s"}
    assert argv[-2:] == ["--", "file"]


@pytest.mark.parametrize("wrong", ["refused", "unconnected", "broken", "late"])
def test_what_is_wrong_is_called_by_its_name(run: Any, wrong: str) -> None:
    with pytest.raises(NotCounted, match=rf"^go, create: 7 answers, 2 {wrong}$"):
        run(**{wrong: 2})


def test_no_answer_is_no_figure(run: Any) -> None:
    with pytest.raises(NotCounted, match=r"^go, create: 0 answers$"):
        run(requests=0)
