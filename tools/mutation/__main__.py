"""Changes the code that decides, one small change at a time, and prints the changes that no test notices: README.md.

    uv run python tools/mutation                          # a sample of each module, 95 % must be noticed
    uv run python tools/mutation edge/ --sample 0          # every change of some modules
    uv run python tools/mutation --seed 7 --json survivors.jsonl
    uv run python tools/mutation --again survivors.jsonl   # after tests were added

The module's unit tests run against each change until one fails. ``equivalents.toml`` lists the changes that no test can
notice because the program does the same.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import faulthandler
import importlib.abc
import json
import os
import random
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from dataclasses import dataclass
from functools import partial
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from mutants import Mutant, mutants_of
from warm_tests import WarmTests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NEEDED_SHARE = 0.95
SLOWEST_S = 120
ARGUMENTS = (
    *("-q", "-s", "-n", "0", "-p", "no:cacheprovider", "--hypothesis-profile=mutation", "--timeout=0"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # libraries are imported once, before
)


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: Mutant
    module: str
    outcome: str
    """``killed``, ``late`` (a test did not end in time: counts as killed), ``survived`` or ``equivalent``."""
    seconds: float


def main() -> None:
    """Exit with 0 when tests noticed enough of the changes that are not equivalent. Print survivors in any case."""
    options = parsed_options()
    targets = {
        module: tests
        for module, tests in tomllib.loads((HERE / "modules.toml").read_text("utf-8"))["modules"].items()
        if not options.modules or any(module.startswith(start) for start in options.modules)
    }
    if not targets:
        sys.exit("no module of modules.toml begins like that")
    every = {module: mutants_of((ROOT / module).read_text("utf-8")) for module in targets}
    equivalents = known_equivalents()
    check_are_current(equivalents, every)
    import_libraries()
    verdicts = list[Verdict]()
    for module, tests in targets.items():
        chosen = (
            listed(every[module], module, options.again)
            if options.again
            else sample(every[module], module, options.sample, options.seed)
        )
        same = [each for each in chosen if (module, each.function, each.change) in equivalents]
        changed = [each for each in chosen if each not in same]
        judged = [Verdict(each, module, "equivalent", 0) for each in same]
        judged += (
            [] if not changed else judge(module, tests, changed, processes=options.processes, quick_s=options.quick)
        )
        for verdict in judged:
            if verdict.outcome in ("survived", "late"):
                log(f"{verdict.outcome}: {verdict.module} {verdict.mutant}")
        log(f"{module:58}{share(judged)}  {sum(each.seconds for each in judged):.0f} s")
        verdicts += judged
    report(verdicts, options.json)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="starts of paths; default: all of modules.toml")
    parser.add_argument("--sample", type=int, default=20, help="changes of each module; 0: all")
    parser.add_argument(
        "--quick", type=float, default=float("inf"), help="leave out tests that take longer, in seconds"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write survivors and late ones here")
    parser.add_argument("--again", type=Path, help="try only the changes in such a file")
    return parser.parse_args()


def sample(every: list[Mutant], module: str, size: int, seed: int) -> list[Mutant]:
    return every if size == 0 or size >= len(every) else random.Random(f"{seed} {module}").sample(every, size)  # noqa: S311


def listed(every: list[Mutant], module: str, survivors: Path) -> list[Mutant]:
    lines = [json.loads(line) for line in survivors.read_text("utf-8").splitlines()]
    changes = {(each["function"], each["change"]) for each in lines if each["module"] == module}
    return [each for each in every if (each.function, each.change) in changes]


def known_equivalents() -> set[tuple[str, str, str]]:
    """(module, function, change) of those that no test can notice."""
    found = tomllib.loads((HERE / "equivalents.toml").read_text("utf-8"))["equivalent"]
    return {(each["module"], each["function"], each["change"]) for each in found}


def check_are_current(equivalents: set[tuple[str, str, str]], every: Mapping[str, Sequence[Mutant]]) -> None:
    """Exit when an entry matches no change of its module, whose code has changed since."""
    found = {(module, each.function, each.change) for module, changes in every.items() for each in changes}
    if stale := {each for each in equivalents if each[0] in every} - found:
        sys.exit("\n".join(["equivalents.toml has entries that match no change:", *map(str, sorted(stale))]))


def import_libraries() -> None:
    """Import once the libraries that every test run needs, and none of our modules, which change."""
    for name in ("httpx2", "fastapi", "uvicorn", "confluent_kafka", "aiokafka", "faust", "typer"):
        __import__(name)
    settings.register_profile(
        "mutation",
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def judge(
    module: str, tests: Sequence[str], mutants: Sequence[Mutant], *, processes: int, quick_s: float
) -> Iterator[Verdict]:
    """Try each change in one collected session, or in a session of its own."""

    def warm(lines: TextIO) -> int:
        def verdict(number: int, outcome: str | None, seconds: float) -> None:
            lines.write(json.dumps([number, outcome, seconds]) + "\n")
            lines.flush()

        def slow(names: Sequence[str]) -> None:
            lines.write(json.dumps(names) + "\n")
            lines.flush()

        plugin = WarmTests(module, mutants, processes=processes, quick_s=quick_s, slow=slow, verdict=verdict)
        return pytest.main([*ARGUMENTS, *tests], plugins=[plugin])

    code, lines, output = in_own_process(warm)
    if code != 0:
        log(output[-5000:])
        sys.exit(f"the tests of {module} do not run without any change: {' '.join(tests)}")
    less = [option for test in json.loads(lines[0]) for option in ("--deselect", test)]
    for line in lines[1:]:
        number, outcome, seconds = cast("tuple[int, str | None, float]", json.loads(line))
        mutant, started = mutants[number], time.monotonic()
        if outcome is None:
            failed = in_own_process(partial(run_in_new_session, module, [*tests, *less], mutant))[0] != 0
            is_late = time.monotonic() - started > SLOWEST_S
            outcome = "survived" if not failed else "late" if is_late else "killed"
        yield Verdict(mutant, module, outcome, seconds + time.monotonic() - started)


def run_in_new_session(module: str, tests: Sequence[str], mutant: Mutant, _: TextIO) -> int:
    """Import everything with the change in it, and run all tests of the module."""
    faulthandler.dump_traceback_later(SLOWEST_S, exit=True)
    sys.meta_path.insert(0, ChangedModule(module, mutant))
    return pytest.main([*ARGUMENTS, "-x", *tests])


class ChangedModule(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def __init__(self, module: str, mutant: Mutant) -> None:
        self._path = str(ROOT / module)
        self._name = module.partition("/src/")[2].removesuffix(".py").replace("/", ".")
        self._mutant = mutant

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return spec_from_file_location(fullname, self._path, loader=self) if fullname == self._name else None

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - overridden
        return compile(self._mutant.tree, self._path, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - overridden
        return ast.unparse(self._mutant.tree)


def in_own_process(work: Callable[[TextIO], int]) -> tuple[int, list[str], str]:
    """Exit code, lines that ``work`` wrote, and output. Processes that it started end with it."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        written, output = Path(folder) / "lines", Path(folder) / "output"
        pid = os.fork()
        if pid == 0:
            tempfile.tempdir = folder
            code = 70
            try:
                os.setsid()
                descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                os.chdir(ROOT)
                sys.dont_write_bytecode = True
                with written.open("w") as stream:
                    code = int(work(stream))
            except BaseException:  # noqa: BLE001 - this process ends below in any case
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        try:
            _, status = os.waitpid(pid, 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        lines = written.read_text("utf-8").splitlines() if written.exists() else []
        return os.waitstatus_to_exitcode(status), lines, output.read_text("utf-8", "replace")


def report(verdicts: Sequence[Verdict], survivors: Path | None) -> None:
    by_module = dict[str, list[Verdict]]()
    for each in verdicts:
        by_module.setdefault(each.module, []).append(each)
    for module, judged in by_module.items():
        print(f"{module:58}{share(judged)}")  # noqa: T201
    print(f"{'all':58}{share(verdicts)}")  # noqa: T201
    alive = [each for each in verdicts if each.outcome == "survived"]
    if survivors is not None:
        lines = [
            {
                "module": each.module,
                "function": each.mutant.function,
                "change": each.mutant.change,
                "outcome": each.outcome,
            }
            for each in verdicts
            if each.outcome in ("survived", "late")
        ]
        survivors.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    counted = [each for each in verdicts if each.outcome != "equivalent"]
    if len(alive) > (1 - NEEDED_SHARE) * len(counted):
        sys.exit(f"fewer than {NEEDED_SHARE:.0%} were noticed")


def share(verdicts: Sequence[Verdict]) -> str:
    counted = [each for each in verdicts if each.outcome != "equivalent"]
    late = sum(each.outcome == "late" for each in counted)
    killed = late + sum(each.outcome == "killed" for each in counted)
    part = f"{killed / len(counted):.0%}" if counted else "-"
    same = len(verdicts) - len(counted)
    return f"{killed:5} of {len(counted):5} killed  {part:>5}  {late} of them late, {same} equivalent"


def log(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
