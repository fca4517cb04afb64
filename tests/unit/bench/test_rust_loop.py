"""The loop in Rust, which only the benchmark compiles: its inputs exist, and a missing tool is reported."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.bench.streams import builds
from tests.bench.toolchains import ToolMissing

from taskbridge.runtime.kafka import producer_config

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.streams.setup import Setup


class _Setup:
    bootstrap_servers = "127.0.0.1:9092"

    def schema_id(self, _topic: Any) -> int:
        return 258


def _given() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(builds.given(cast("Setup", _Setup())))
    return found


def test_it_is_given_all_that_it_reads() -> None:
    source = (builds.CRATE / "src" / "given.rs").read_text("utf-8")
    read = set(re.findall(r'(?:rules\[|text\()"(\w+)"', source))
    assert read == _given().keys()


def test_its_producers_are_the_service_s() -> None:
    given, producer = _given(), producer_config("127.0.0.1:9092")
    assert producer.items() - given["producer"].items() == {("linger.ms", producer["linger.ms"])}
    assert given["event_frame"] == [0, 0, 0, 1, 2]


def test_it_folds_with_the_core_of_this_checkout_and_crates_that_anyone_can_get() -> None:
    crate = tomllib.loads((builds.CRATE / "Cargo.toml").read_text("utf-8"))
    assert (builds.CRATE / crate["dependencies"]["taskbridge-native"]["path"]).resolve() == builds.CORE
    packages = tomllib.loads((builds.CRATE / "Cargo.lock").read_text("utf-8"))["package"]
    sources = {package["name"]: package.get("source") for package in packages}
    ours = [name for name, source in sources.items() if source is None]
    assert sorted(ours) == ["rust-loop", "taskbridge-native"]
    assert set(sources.values()) == {None, "registry+https://github.com/rust-lang/crates.io-index"}


def _compiled(*_: object) -> Path:
    pytest.fail("compiled")


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("cargo", "cargo is not installed: see https://rustup.rs"),
        ("g++", "g++ is not installed: apt-get install build-essential"),
        ("libclang", "libclang is not installed: apt-get install libclang-dev"),
    ],
)
def test_a_missing_tool_is_reported_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch, missing: str, remedy: str
) -> None:
    def which(program: str) -> str | None:
        return None if program == missing else f"/bin/{program}"

    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setattr(builds, "_LIBCLANG", ("/nowhere/*",))
    monkeypatch.setattr(builds, "built", _compiled)
    monkeypatch.delenv("LIBCLANG_PATH", raising=False)
    with pytest.raises(ToolMissing, match=re.escape(remedy)):
        builds.build_rust_loop(lambda _: None)
