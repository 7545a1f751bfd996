"""The pages say what the files do."""

from __future__ import annotations

import re

import pytest
import typer

from deploy.conftest import ROOT
from deploy.test_compose import BASE, GPU, services
from sie_triton.backends.releases import Release, onnx_runtime
from sie_triton.cli import app
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
    named = set(re.findall(r"`(--[a-z-]+)", KUBERNETES)) - {"--trace-config"}
    assert named <= known, named - known


@pytest.mark.parametrize("page", [DOCKER, KUBERNETES, OPERATIONS], ids=["docker", "kubernetes", "operations"])
def test_paths_and_links_lead_somewhere(page: str) -> None:
    for path in re.findall(r"`((?:docker|dashboards|model_bundles|docs)/[\w./-]*)`", page):
        assert (ROOT / path).exists(), path
    for target, anchor in re.findall(r"\]\(([\w.-]+\.md)(?:#([\w-]+))?\)", page):
        text = (ROOT / "docs" / target).read_text(encoding="utf-8")
        headings = {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in re.findall(r"^#+ (.*)$", text, re.M)}
        assert not anchor or anchor in headings
