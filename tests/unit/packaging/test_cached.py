"""What tests build once on a machine: two processes at once make one, and another content has another name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from support import newer_python
from support.cached import digest_of
from support.wheels import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_MAKER = """\
import sys
from pathlib import Path
from support.cached import cached

def make(folder):
    folder.mkdir()
    (folder / "tool").write_text("complete")
    with Path(sys.argv[1]).open("a") as made:
        made.write("made\\n")
    print("making", flush=True)
    sys.stdin.readline()

print((cached("tools", make) / "tool").read_text(), flush=True)
"""


def test_two_processes_that_need_the_same_folder_make_it_once(tmp_path: Path) -> None:
    environment = {"TASKBRIDGE_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT / "tests")}
    environment["PYTHONUNBUFFERED"] = "1"

    def started() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", _MAKER, str(tmp_path / "made")]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    with started() as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "making\n"
        with started() as second:
            assert second.stdout is not None
            assert second.stdout.readline().startswith("waiting for tools")
            assert first.communicate("\n")[0] == "complete\n"
            assert second.communicate()[0] == "complete\n"
    assert (tmp_path / "made").read_text() == "made\n"
    assert {each.name for each in (tmp_path / "cache").iterdir()} == {"tools", "tools.lock"}


def test_the_name_of_a_python_changes_with_what_unpacks_it(tmp_path: Path) -> None:
    program = tmp_path / "newer_python.py"
    names = [newer_python.name_of("3.14")]
    program.write_text("another way")
    names += [newer_python.name_of("3.14", program), newer_python.name_of("3.15", program)]
    assert len({*names}) == 3, names
    assert digest_of([program], "1") != digest_of([program], "2")
