"""Changes the code that decides, one small change at a time, and says which changes no test notices.

    uv run python tools/mutation.py                       # a sample of each module, 95 % must be noticed
    uv run python tools/mutation.py edge/proof --sample 0 # every change of some modules
    uv run python tools/mutation.py --seed 7 --json survivors.jsonl

Each change is made in a copy of the tree, in which the module's unit tests then run until one fails. What cannot be
noticed by any test, because the program does the same, stands in ``tools/equivalent_mutants.toml`` with the reason.
mutmut and cosmic-ray were tried: the first does not work with the pytest in use, the second starts an interpreter for
each change, which takes five times as long.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, Phase, settings
from mutants import Mutant, mutants_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
TOOLS = Path(__file__).parent
COPIED = ("edge", "streams", "schemas", "service", "deploy", "tests", "docs")
ALONE = ("pyproject.toml", "README.md")
NEEDED_SHARE = 0.95
SLOWEST_S = 120


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: Mutant
    module: str
    outcome: str
    """``killed``, ``survived``, ``equivalent``, or ``timeout``, which counts as killed."""
    seconds: float


def main() -> None:
    """Exit code 0 when enough of what is not equivalent was killed; the survivors are printed either way."""
    options = parsed_options()
    targets = {
        module: tests
        for module, tests in tomllib.loads((TOOLS / "mutation.toml").read_text("utf-8"))["modules"].items()
        if not options.modules or any(module.startswith(start) for start in options.modules)
    }
    if not targets:
        sys.exit("no module of tools/mutation.toml begins like that")
    equivalents = known_equivalents()
    chosen = [(module, mutant) for module in targets for mutant in sample(module, options.sample, options.seed)]
    told(f"{len(chosen)} changes in {len(targets)} modules, seed {options.seed}")
    import_libraries()
    verdicts = list[Verdict]()
    with copies(options.processes) as trees:
        check_unchanged(trees, targets)
        with ThreadPoolExecutor(options.processes) as pool:
            for verdict in pool.map(partial(judge, targets, trees, equivalents), chosen):
                verdicts.append(verdict)
                if verdict.outcome == "survived":
                    told(f"survived: {verdict.module} {verdict.mutant}")
                if len(verdicts) % 25 == 0:
                    told(f"{len(verdicts)} of {len(chosen)}")
    report(verdicts, options.json)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="starts of paths; all of tools/mutation.toml where none is given")
    parser.add_argument("--sample", type=int, default=20, help="changes of each module; 0: all there are")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where survivors are written, one JSON object a line")
    return parser.parse_args()


def sample(module: str, size: int, seed: int) -> list[Mutant]:
    every = mutants_of((ROOT / module).read_text("utf-8"))
    return every if size == 0 or size >= len(every) else random.Random(f"{seed} {module}").sample(every, size)  # noqa: S311


def known_equivalents() -> set[tuple[str, str, str]]:
    """(module, function, change) of what no test could notice."""
    listed = tomllib.loads((TOOLS / "equivalent_mutants.toml").read_text("utf-8"))["equivalent"]
    return {(each["module"], each["function"], each["change"]) for each in listed}


def import_libraries() -> None:
    """What every test run imports is imported once; nothing of ours is: that is what changes."""
    sys.path[:] = [each for each in sys.path if Path(each or ".").resolve() not in (ROOT, TOOLS)]
    for name in (
        "httpx2",
        "fastapi",
        "uvicorn",
        "confluent_kafka",
        "aiokafka",
        "faust",
        "typer",
    ):
        __import__(name)
    settings.register_profile(
        "mutation",
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def copies(count: int) -> Generator[SimpleQueue[Path]]:
    """As many copies of the tree as run at the same time."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        trees = SimpleQueue[Path]()
        for number in range(count):
            tree = Path(folder) / str(number)
            for name in COPIED:
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("target", "__pycache__"))
            for name in ALONE:
                shutil.copy2(ROOT / name, tree / name)
            trees.put(tree)
        yield trees


def check_unchanged(trees: SimpleQueue[Path], targets: Mapping[str, Sequence[str]]) -> None:
    """Tests that fail as it is would count every change as noticed."""
    tree = trees.get()
    wanted = sorted({test for tests in targets.values() for test in tests})
    outcome = run_tests(tree, wanted, timeout_s=SLOWEST_S * 10)
    trees.put(tree)
    if outcome != "survived":
        told((tree / "output").read_text("utf-8", "replace")[-5000:])
        sys.exit(f"the tests fail without any change ({outcome}): {' '.join(wanted)}")


def judge(
    targets: Mapping[str, Sequence[str]],
    trees: SimpleQueue[Path],
    equivalents: set[tuple[str, str, str]],
    chosen: tuple[str, Mutant],
) -> Verdict:
    module, mutant = chosen
    if (module, mutant.function, mutant.change) in equivalents:
        return Verdict(mutant, module, "equivalent", 0)
    tree, start = trees.get(), time.monotonic()
    path = tree / module
    whole = path.read_text("utf-8")
    try:
        path.write_text(mutant.source, "utf-8")
        outcome = run_tests(tree, targets[module], timeout_s=SLOWEST_S)
    finally:
        path.write_text(whole, "utf-8")
        trees.put(tree)
    return Verdict(mutant, module, outcome, time.monotonic() - start)


def run_tests(tree: Path, tests: Sequence[str], *, timeout_s: float) -> str:
    """``survived`` where all pass, ``killed`` where one fails, ``timeout`` where they do not end."""
    pid = os.fork()
    if pid == 0:
        run_as_child(tree, tests)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout"


def run_as_child(tree: Path, tests: Sequence[str]) -> NoReturn:
    """Run the tests in a process of its own and end with pytest's exit code. What they start ends with the group."""
    os.setsid()
    output = os.open(tree / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True
    arguments = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--hypothesis-profile=mutation", "--timeout=60"]
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # libraries are imported once, before
    code = 70
    try:
        code = int(pytest.main([*arguments, f"--rootdir={tree}", "-c", str(tree / "pyproject.toml"), *tests]))
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends below
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def report(verdicts: Sequence[Verdict], survivors: Path | None) -> None:
    by_module = dict[str, list[Verdict]]()
    for each in verdicts:
        by_module.setdefault(each.module, []).append(each)
    for module, judged in by_module.items():
        print(f"{module:42}{share(judged)}")  # noqa: T201
    print(f"{'all':42}{share(verdicts)}")  # noqa: T201
    alive = [each for each in verdicts if each.outcome == "survived"]
    if survivors is not None:
        lines = [
            {"module": each.module, "function": each.mutant.function, "change": each.mutant.change} for each in alive
        ]
        survivors.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    counted = [each for each in verdicts if each.outcome != "equivalent"]
    if len(alive) > (1 - NEEDED_SHARE) * len(counted):
        sys.exit(f"fewer than {NEEDED_SHARE:.0%} were noticed")


def share(verdicts: Sequence[Verdict]) -> str:
    counted = [each for each in verdicts if each.outcome != "equivalent"]
    killed = sum(each.outcome in ("killed", "timeout") for each in counted)
    part = f"{killed / len(counted):.0%}" if counted else "-"
    return f"{killed:5} of {len(counted):5} killed  {part:>5}  {len(verdicts) - len(counted)} equivalent"


def told(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
