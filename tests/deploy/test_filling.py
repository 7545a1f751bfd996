"""The Job that fills a claim and the containers that wait for it: what they run is run here, on a folder."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from frontend.repository import write_repository as write_served
from sie_frontend.manifest import TritonModel, dump_manifest, read_manifest

from deploy.conftest import MODEL_ID
from deploy.test_manifests import KINDS, Object, frontend_of, of_kind, render, workloads
from sie_triton.deploy import DeployOptions
from sie_triton.deploy.options import Kind
from sie_triton.repository.publish import tree_digests


def job_of(files: dict[str, list[Object]]) -> tuple[str, Object]:
    """The Job's name and its container."""
    [(name, job)] = of_kind(files, "Job").items()
    [container] = job["spec"]["template"]["spec"]["containers"]
    return name, container


def waiting_of(files: dict[str, list[Object]]) -> Object:
    first: list[Object] = frontend_of(files)["spec"]["initContainers"]
    [container] = [container for container in first if container["name"] == "wait-for-repository"]
    return container


@pytest.mark.parametrize("kind", KINDS)
def test_the_job_makes_what_everybody_waits_for(kind: Kind, repository: Path) -> None:
    files = render(kind, DeployOptions(fill="build"), repository)
    name, container = job_of(files)
    for component, pod in workloads(files):
        [wait] = [c for c in pod["spec"]["initContainers"] if c["name"] == "wait-for-repository"]
        assert wait["command"][-1] == container["command"][-1] == f"/models/.{name}", component
        [mount] = wait["volumeMounts"]
        assert mount == {"name": "repository", "mountPath": "/models", "readOnly": True}
        assert wait["image"] == pod["spec"]["containers"][0]["image"], "an image that is there anyway"
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["MODELS"] == MODEL_ID
    assert environment["SIE_TRITON_REPOSITORY"] == "/models/repository"
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "repository"]
    assert "readOnly" not in mount


def test_the_same_work_is_the_same_job_and_other_work_another(repository: Path) -> None:
    def name(**options: Any) -> str:
        return job_of(render("kubernetes", DeployOptions(**options), repository))[0]

    assert name(fill="build") == name(fill="build", triton_replicas=3, ingress_host="a.example.org")
    distinct = [
        name(fill="build"),
        name(fill="build", builder_image="host/builder:2"),
        name(fill="s3://bucket/a"),
        name(fill="s3://bucket/b"),
    ]
    assert len(set(distinct)) == 4
    assert max(map(len, distinct)) <= 63


def test_without_a_job_pods_wait_for_a_claim_that_is_ours_and_for_no_other(repository: Path) -> None:
    wait = waiting_of(render("kubernetes", DeployOptions(), repository))
    assert wait["command"][-1] == "/models/repository/manifest.json"
    files = render("kubernetes", DeployOptions(source="pvc://filled/repository"), repository)
    assert "initContainers" not in frontend_of(files)["spec"]


def _published(folder: Path) -> Path:
    """A repository whose manifest has the digest of every file."""
    manifest = read_manifest(write_served(folder))
    models = {path.name: TritonModel((), (), tree_digests(path)) for path in folder.iterdir() if path.is_dir()}
    (folder / "manifest.json").write_bytes(dump_manifest(msgspec.structs.replace(manifest, triton_models=models)))
    return folder


def test_what_the_containers_run_fills_the_claim(repository: Path, tmp_path: Path) -> None:
    """The rendered commands, with the claim's folder in place of `/models`, and a folder in place of the bucket."""
    claim, stored = tmp_path / "claim", _published(tmp_path / "stored")
    claim.mkdir()
    files = render("kubernetes", DeployOptions(fill="s3://bucket/built"), repository)
    _, job = job_of(files)

    def here(text: str) -> str:
        return text.replace("/models", str(claim)).replace("s3://bucket/built", f"file://{stored}")

    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sie-triton").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sie_triton.cli "$@"\n')
    (programs / "sie-triton").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        **{entry["name"]: here(entry["value"]) for entry in job["env"] if entry["name"] != "HOME"},
    }
    waiting = subprocess.Popen([here(part) for part in waiting_of(files)["command"]], stdout=subprocess.DEVNULL)
    try:
        done = subprocess.run(
            [here(part) for part in job["command"]], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert waiting.wait(60) == 0
    finally:
        waiting.kill()
    filled = tree_digests(claim / "repository")
    filled.pop("manifest.sha256")  # which a build writes, and a copy too
    assert filled == tree_digests(stored)
    # A Job that fails leaves nothing to go on.
    (stored / "manifest.json").unlink()
    marker = Path(here(job["command"][-1]))
    marker.unlink()
    again = subprocess.run([here(p) for p in job["command"]], env=environment, capture_output=True, check=False)
    assert again.returncode != 0
    assert not marker.exists()


def test_a_container_that_waits_ends_when_it_is_told(repository: Path, tmp_path: Path) -> None:
    command = waiting_of(render("kubernetes", DeployOptions(), repository))["command"]
    waiting = subprocess.Popen([*command[:-1], str(tmp_path / "never")], stdout=subprocess.PIPE)
    assert waiting.stdout is not None
    assert b"waiting for" in waiting.stdout.readline()
    waiting.terminate()
    # It ended by itself: the first process of a container is not ended by a signal that it does not handle.
    assert waiting.wait(60) in (0, 143)
    waiting.stdout.close()
