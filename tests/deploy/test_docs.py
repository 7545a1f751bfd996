"""The pages say what the files do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from docs.exceptions import FOREIGN_OPTIONS
from docs.markdown import pages
from docs.reader import logical_lines
from typer.testing import CliRunner

from deploy.conftest import ROOT
from deploy.custom_types import recorded
from deploy.test_compose import BASE, GPU, services
from sie_triton.backends.releases import Release, onnx_runtime
from sie_triton.cli import app
from sie_triton.deploy import DeployOptions, write_manifests
from sie_triton.deploy.autoscaling import PENDING_ITEMS, PENDING_TARGET
from sie_triton.deploy.options import DEFAULT_TRITON_IMAGE

KEYS = ROOT / "docker-compose.keys.yml"
DOCKER = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
KUBERNETES = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_variable_of_compose_is_explained_with_its_default() -> None:
    section = DOCKER.partition("## Variables")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[A-Z].*?) \| (.*?) \|", section, re.MULTILINE)
    explained = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    used = {
        match
        for path in (BASE, GPU, KEYS)
        for match in re.findall(r"\$\{(\w+):-([^}]*)\}", path.read_text(encoding="utf-8"))
    }
    environments = [services()[name]["environment"] for name in ("builder", "frontend")]
    passed = {name for environment in environments for name, value in environment.items() if value is None}
    assert set(explained) == {name for name, _ in used} | passed
    for name, default in used:
        assert f"`{default}`" in explained[name], name
    for name in passed:
        assert explained[name] == "not set"


def test_the_tags_carry_the_onnx_runtime_that_is_said() -> None:
    rows = re.findall(r"^\| `(\d\d\.\d\d)-py3` \| ([\d.]+) \| (.*)\|$", DOCKER, re.MULTILINE)
    assert len(rows) >= 4
    for tag, version, _ in rows:
        runtime = onnx_runtime(Release.parse(tag))
        assert runtime.version == version
        assert (runtime.max_ir_version, runtime.max_opset) >= (10, 21)
    [default] = [tag for tag, _, remarks in rows if "**default**" in remarks]
    assert DEFAULT_TRITON_IMAGE.endswith(f":{default}-py3")


def test_options_named_on_the_page_exist() -> None:
    deploy = next(command for command in typer.main.get_group(app).commands.values() if command.name == "deploy")
    known = {option for parameter in deploy.params for option in parameter.opts}
    named = set(re.findall(r"`(--[a-z-]+)", KUBERNETES)) - set(FOREIGN_OPTIONS)
    assert named <= known, named - known


def test_every_option_of_deploy_is_on_the_page() -> None:
    deploy = next(command for command in typer.main.get_group(app).commands.values() if command.name == "deploy")
    known = {option for parameter in deploy.params for option in parameter.opts if option.startswith("--")}
    assert known - set(re.findall(r"--[a-z][a-z-]+", KUBERNETES)) <= {"--help", "--repository", "--out", *_EVIDENT}


# Numbers and names that say what they are.
_EVIDENT = {"--name", "--engine", "--frontend-replicas"}


def test_the_adapters_rules_are_those_that_are_rendered(repository: Path, tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", KUBERNETES, re.DOTALL)
    write_manifests("kubernetes", repository, tmp_path, DeployOptions(namespace="search"))
    assert yaml.safe_load(block) == yaml.safe_load((tmp_path / "prometheus-adapter.yaml").read_text())
    assert f"`{PENDING_ITEMS}` ({PENDING_TARGET} a pod)" in KUBERNETES


def test_the_packages_that_objects_were_checked_against_are_named() -> None:
    for package in recorded()["packages"]:
        name, _, version = re.sub(r"^kubernetes-models-", "@kubernetes-models/", package).rpartition("-")
        assert f"{name.replace('_', '-')} {version}" in " ".join(KUBERNETES.split())


def test_the_page_can_be_followed_in_order(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `deploy` of the page is run; what `kubectl` is asked about afterwards was rendered, or made, before."""
    monkeypatch.chdir(tmp_path)
    page = next(page for page in pages() if page.name == "docs/kubernetes.md")
    folders: dict[str, list[dict[str, Any]]] = {}
    made: set[tuple[str, str]] = set()
    for line in (line for block in page.blocks if block.language == "sh" for line in logical_lines(block.text)):
        words = shlex.split(line)
        if words[:2] == ["sie-triton", "deploy"]:
            words[words.index("-r") + 1] = str(repository)
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, f"{line}: {done.output}"
            folder = words[words.index("-o") + 1]
            kustomization = yaml.safe_load(Path(folder, "kustomization.yaml").read_text())
            texts = [Path(folder, name).read_text() for name in kustomization["resources"]]
            folders[folder] = [found for text in texts for found in yaml.safe_load_all(text)]
            made |= {(found["kind"].lower(), found["metadata"]["name"]) for found in folders[folder]}
            _secrets_come_before(words, made)
        if words[0] == "kubectl":
            _is_about_what_is_there(line, folders, made)


def _secrets_come_before(words: list[str], made: set[tuple[str, str]]) -> None:
    for option in ("--ingress-tls-secret", "--tls-secret"):
        if option in words:
            assert ("secret", words[words.index(option) + 1]) in made


def _is_about_what_is_there(line: str, folders: dict[str, list[dict[str, Any]]], made: set[tuple[str, str]]) -> None:
    if match := re.search(r"apply -k (\S+)", line):
        assert match[1] in folders
    if match := re.search(r"create secret (?:generic|tls) (\S+)", line):
        made.add(("secret", match[1]))
    # KServe makes the Service of a transformer.
    by_kserve = {("service", "sie-triton-transformer")}
    for kind, name in re.findall(r"\b(deployment|service|inferenceservice)[/ ]([a-z][\w-]+)", line):
        assert (kind, name) in made | by_kserve, line
    if match := re.search(r"job -l app.kubernetes.io/component=(\w+)", line):
        jobs = [found for objects in folders.values() for found in objects if found["kind"] == "Job"]
        assert {job["metadata"]["labels"]["app.kubernetes.io/component"] for job in jobs} == {match[1]}
    if match := re.search(r"external.metrics.k8s.io/v1beta1/namespaces/search/(\w+)", line):
        scalers = [f for objects in folders.values() for f in objects if f["kind"] == "HorizontalPodAutoscaler"]
        assert match[1] in str(scalers)


@pytest.mark.parametrize("page", [DOCKER, KUBERNETES, OPERATIONS], ids=["docker", "kubernetes", "operations"])
def test_paths_and_links_lead_somewhere(page: str) -> None:
    for path in re.findall(r"`((?:docker|dashboards|model_bundles|docs)/[\w./-]*)`", page):
        assert (ROOT / path).exists(), path
    for target, anchor in re.findall(r"\]\(([\w.-]+\.md)(?:#([\w-]+))?\)", page):
        text = (ROOT / "docs" / target).read_text(encoding="utf-8")
        headings = {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in re.findall(r"^#+ (.*)$", text, re.M)}
        assert not anchor or anchor in headings
