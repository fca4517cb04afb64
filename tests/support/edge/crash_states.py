"""What a disk may hold after a power failure, from a process's calls: writes, syncs, names created and removed.

What was synced is there. Of what was not yet, any part may be: writes in any order, each of them torn between sectors,
a file longer than what was written into it. Names change in order (file systems keep a journal of them), but not
before their folder is synced.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence


SECTOR_BYTES = 512
_ALL_SUBSETS_OF = 7
_CALLS = "pwrite64,write,fsync,fdatasync,ftruncate,openat,rename,unlink"

Files = dict[str, bytes]
Step = tuple[str, list[int]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call to the disk, or one mark in the trace."""

    name: str
    path: str = ""
    content: bytes = b""
    at: int = 0
    to: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Of a file's content: ``content`` at a place, or no content but so many bytes in all."""

    file: int
    content: bytes
    at: int
    truncates: bool = False


@dataclass(frozen=True, slots=True)
class Naming:
    """Of the folder: a file got a name, or lost it."""

    name: str
    file: int | None
    old_name: str | None = None
    """That it had before."""


Pending = Change | Naming


@dataclass(frozen=True)
class State:
    """What the disk may hold, and what must be true of it."""

    files: Files
    required: frozenset[int]
    """Acknowledged, and not delivered yet."""
    allowed: frozenset[int]
    """Put by then, and their removal not acknowledged."""


class Recorder:
    """Runs the real spool through histories, and returns its calls to the disk."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        trace = Path(self._folder.name) / "trace"
        script = Path(__file__).with_name("recorded_spool.py")
        strace = ["strace", "-f", "-qq", "-y", "-xx", "-s", "100000", "--seccomp-bpf", "-e", f"trace={_CALLS}"]
        self._process = subprocess.Popen(
            [*strace, "-o", str(trace), sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._trace = trace
        self._read = 0
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()

    def record(self, folder: Path, steps: Sequence[Step], *, checkpoint_bytes: int, first: int = 1) -> list[Call]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        history = {"folder": str(folder), "steps": steps, "checkpoint_bytes": checkpoint_bytes, "first": first}
        self._process.stdin.write(json.dumps(history) + "\n")
        self._process.stdin.flush()
        # Log lines of the spool come first.
        assert "done\n" in iter(self._process.stdout.readline, ""), "the history failed: see standard error"
        with self._trace.open() as trace:
            trace.seek(self._read)
            lines = trace.read()
            self._read = trace.tell()
        calls = list(_calls(lines.splitlines(), str(folder)))
        marks = [each.path for each in calls if each.name == "mark"]
        end = max(at for at, each in enumerate(calls) if each.name == "mark" and each.path == "end")
        assert marks.count("begin") == 1
        return calls[:end]


_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)$")
_HEX = re.compile(r"((?:\\x[0-9a-f]{2})+)")


def _calls(lines: Iterable[str], folder: str) -> Iterator[Call]:
    """A sync counts from when it is over, everything else from when it began."""
    syncing: dict[str, str] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        thread, name, resumed, rest = found[1], found[2], found[3] != "(", found[4]
        if name in ("fsync", "fdatasync"):
            if resumed:
                rest = syncing.pop(thread)
            elif "<unfinished" in rest:
                syncing[thread] = rest
                continue
        elif resumed or " = -1 " in rest:
            continue
        call = _call(name, rest, [bytes.fromhex(each.replace("\\x", "")) for each in _HEX.findall(rest)], folder)
        if call is not None:
            yield call


def _call(name: str, rest: str, strings: list[bytes], folder: str) -> Call | None:  # noqa: PLR0911 - one for each call
    if name == "write":
        if strings[0] != b"/dev/null" or len(strings) == 1:
            return None
        kind, *numbers = json.loads(strings[1])
        return Call("mark", kind, json.dumps(numbers).encode())
    path = strings[1 if name == "openat" else 0].decode()
    if path == folder and name in ("fsync", "fdatasync"):
        return Call("sync", "")
    if not path.startswith(f"{folder}/") or path.endswith(("-shm", ".lock", "/page")):
        return None
    path = path.removeprefix(f"{folder}/")
    numbers = [int(each) for each in re.findall(r", (\d+)(?=[,) ])", rest)]
    match name:
        case "pwrite64":
            return Call("write", path, strings[1] if len(strings) > 1 else b"", numbers[-1])
        case "ftruncate":
            return Call("truncate", path, at=numbers[-1])
        case "rename":
            return Call("rename", path, to=strings[1].decode().removeprefix(f"{folder}/"))
        case "openat":
            return Call("create", path) if "O_CREAT" in rest else None
        case "unlink":
            return Call("unlink", path)
        case _:
            return Call("sync", path)


@dataclass
class Disk:
    """A folder on a disk, changed by one call after the other."""

    synced: dict[int, bytes] = field(default_factory=dict[int, bytes])
    """Files, by a number for their inode."""
    synced_names: dict[str, int] = field(default_factory=dict[str, int])
    pending: list[tuple[Pending, int]] = field(default_factory=list[tuple["Pending", int]])
    """Data that is not synced, and the call that wrote it."""

    def __post_init__(self) -> None:
        self._names = dict(self.synced_names)
        self._marks: dict[str, dict[int, int]] = {}
        self._at = 0
        self._synced_at = 0

    @staticmethod
    def after(state: State) -> Disk:
        """What the next process finds when power is back."""
        names = {name: at for at, name in enumerate(state.files)}
        disk = Disk({names[name]: content for name, content in state.files.items()}, names)
        disk._marks["put"] = dict.fromkeys(state.allowed, 0)
        disk._marks["acknowledged"] = dict.fromkeys(state.required, 0)
        return disk

    @property
    def files(self) -> Files:
        return {name: self.synced[file] for name, file in self.synced_names.items()}

    @property
    def next_number(self) -> int:
        return max(self._marks.get("put", {}), default=0) + 1

    def states(self, calls: Iterable[Call], chance: random.Random, *, at_random: int) -> Iterator[State]:
        """All states that the disk may be in after a power failure, each once: the systematic ones and random ones."""
        seen: set[int] = set()
        for call in [*calls, Call("sync", "nothing")]:
            if call.name == "sync":
                for chosen, since in _choices(self.pending, chance, at_random):
                    state = self._state(chosen, max(since, self._synced_at))
                    identity = hash((tuple(sorted(state.files.items())), state.required, state.allowed))
                    if identity not in seen:
                        seen.add(identity)
                        yield state
            self.apply(call)

    def apply(self, call: Call) -> None:
        self._at += 1
        if call.name == "mark":
            for number in json.loads(call.content):
                self._marks.setdefault(call.path, {})[number] = self._at
        elif call.name == "sync":
            self._sync(call.path)
        elif call.name in ("write", "truncate"):
            change = Change(self._names[call.path], call.content, call.at, truncates=call.name == "truncate")
            self.pending.append((change, self._at))
        elif call.name == "rename":
            file = self._names.pop(call.path)
            self._names[call.to] = file
            self.pending.append((Naming(call.to, file, call.path), self._at))
        elif call.name == "unlink":
            del self._names[call.path]
            self.pending.append((Naming(call.path, None), self._at))
        elif call.path not in self._names:
            file = self._names[call.path] = max(self.synced, default=0) + 1
            self.synced[file] = b""
            self.pending.append((Naming(call.path, file), self._at))

    def _sync(self, path: str) -> None:
        self._synced_at = self._at
        file = self._names.get(path)
        done = [each for each, _ in self.pending if (_is_of(each, file) if path else isinstance(each, Naming))]
        _apply(done, self.synced, self.synced_names)
        self.pending = [(each, at) for each, at in self.pending if not any(each is other for other in done)]

    def _state(self, chosen: Sequence[Pending], since: int) -> State:
        contents, names = dict(self.synced), dict(self.synced_names)
        _apply(chosen, contents, names)
        put, acknowledged = self._marks.get("put", {}), self._marks.get("acknowledged", {})
        # The state may be that of any time since the last of these changes: it must meet the requirements of that time.
        delivered = {each for each, at in self._marks.get("delivered", {}).items() if at < since}
        removed = {each for each, at in self._marks.get("removed", {}).items() if at < since}
        return State(
            {name: contents[file] for name, file in names.items()},
            frozenset(acknowledged.keys() - delivered),
            frozenset(put.keys() - removed),
        )


def _is_of(each: Pending, file: int | None) -> bool:
    return isinstance(each, Change) and each.file == file


def _apply(chosen: Iterable[Pending], contents: dict[int, bytes], names: dict[str, int]) -> None:
    for each in chosen:
        if isinstance(each, Naming):
            if each.file is None:
                names.pop(each.name, None)
            else:
                names[each.name] = each.file
                names.pop(each.old_name or "", None)
            continue
        before = contents[each.file]
        if each.truncates:
            contents[each.file] = before[: each.at].ljust(each.at, b"\0")
        else:
            before = before.ljust(each.at, b"\0")
            contents[each.file] = before[: each.at] + each.content + before[each.at + len(each.content) :]


def _choices(
    pending: Sequence[tuple[Pending, int]], chance: random.Random, at_random: int
) -> Iterator[tuple[list[Pending], int]]:
    """What of the pending changes may have reached the disk, and when the last of them came (0 for none)."""
    changes = [each for each, _ in pending]
    times = [at for _, at in pending]
    count = len(changes)
    whole = range(count)
    for some in range(count + 1):
        yield changes[:some], max(times[:some], default=0)
    for torn in whole:
        for part in _torn(changes[torn]):
            yield [*changes[:torn], *part], times[torn]
            yield [*changes[:torn], *part, *changes[torn + 1 :]], times[-1]
    sizes = range(count + 1) if count <= _ALL_SUBSETS_OF else (1, count - 1)
    for size in sizes:
        for some in combinations(whole, size):
            yield _in_order([changes[each] for each in some], changes), max((times[each] for each in some), default=0)
    for _ in range(at_random if count else 0):
        until = chance.randint(1, count)
        parts: list[Pending] = []
        for each in changes[:until]:
            share = chance.random()
            parts += [part for part in _sectors(each) if chance.random() < share]
        yield _in_order(parts, changes), times[until - 1]


def _torn(change: Pending) -> Iterator[list[Pending]]:
    """Its beginning, its end, and nothing of it but its length."""
    sectors = list(_sectors(change))
    for cut in range(1, len(sectors)):
        yield sectors[:cut]
        yield sectors[cut:]
    if isinstance(change, Change) and not change.truncates:
        yield [Change(change.file, b"", change.at + len(change.content))]


def _sectors(change: Pending) -> Iterator[Pending]:
    if isinstance(change, Naming) or change.truncates:
        yield change
        return
    at, end = change.at, change.at + len(change.content)
    while at < end:
        until = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield Change(change.file, change.content[at - change.at : until - change.at], at)
        at = until


def _in_order(chosen: list[Pending], changes: Sequence[Pending]) -> list[Pending]:
    """Without names that changed after one that did not."""
    namings = [each for each in changes if isinstance(each, Naming)]
    stored = 0
    found: list[Pending] = []
    for each in chosen:
        if isinstance(each, Naming):
            if stored < len(namings) and each is namings[stored]:
                stored += 1
            else:
                continue
        found.append(each)
    return found
