"""Changes the code that decides, one small change at a time, and prints the changes that no test notices: README.md.

    uv run python tools/mutation                          # a sample of each module, 95 % must be noticed
    uv run python tools/mutation edge/ --sample 0          # every change of some modules

For each change, the module's unit tests run in a process of their own until one fails.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.abc
import os
import random
import signal
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from mutants import Mutant, mutants_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NEEDED_SHARE = 0.95
SLOWEST_S = 300
"""A change whose tests take longer is noticed: it made the program wait for ever."""
ARGUMENTS = (
    *("-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--hypothesis-profile=mutation", "--timeout=0"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of Hypothesis, which is imported before
)
UNCHANGED = -1


def main() -> None:
    """Exit with 0 when tests noticed enough of the changes. Print the others in any case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="starts of paths; default: all of modules.toml")
    parser.add_argument("--sample", type=int, default=20, help="changes of each module; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    known: dict[str, list[str]] = tomllib.loads((HERE / "modules.toml").read_text("utf-8"))["modules"]
    if options.one is not None:
        [module] = options.modules
        sys.exit(run_tests(module, known[module], options.one))
    chosen = {module: known[module] for module in known if module.startswith(tuple(options.modules or [""]))}
    if not chosen:
        sys.exit("no module of modules.toml begins like that")
    tried = noticed = 0
    for module in chosen:
        if is_noticed(module, UNCHANGED):
            sys.exit(f"the tests of {module} fail without any change: {' '.join(known[module])}")
        changes = mutants_of((ROOT / module).read_text("utf-8"))
        numbers = sample(len(changes), options.sample, f"{options.seed} {module}")
        with ThreadPoolExecutor(os.cpu_count()) as running:
            found = list(running.map(partial(is_noticed, module), numbers))
        for number, is_killed in zip(numbers, found, strict=True):
            if not is_killed:
                print(f"survived: {module} {changes[number]}")  # noqa: T201
        print(f"{module:58}{sum(found):5} of {len(found):5} noticed", flush=True)  # noqa: T201
        tried, noticed = tried + len(found), noticed + sum(found)
    if noticed < NEEDED_SHARE * tried:
        sys.exit(f"{noticed} of {tried} were noticed, fewer than {NEEDED_SHARE:.0%}")


def sample(count: int, size: int, seed: str) -> Sequence[int]:
    return range(count) if size == 0 or size >= count else sorted(random.Random(seed).sample(range(count), size))  # noqa: S311


def is_noticed(module: str, number: int) -> bool:
    """Whether a test fails with this change, or does not end. Processes that the tests started end with them."""
    command = [sys.executable, str(HERE), module, "--one", str(number)]
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return running.wait(SLOWEST_S) != 0
        except subprocess.TimeoutExpired:
            return True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def run_tests(module: str, tests: Sequence[str], number: int) -> int:
    """Run all tests of the module with the change in it."""
    settings.register_profile(
        "mutation",
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    if number != UNCHANGED:
        sys.meta_path.insert(0, ChangedModule(module, mutants_of((ROOT / module).read_text("utf-8"))[number]))
    return pytest.main([*ARGUMENTS, *tests])


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


if __name__ == "__main__":
    main()
