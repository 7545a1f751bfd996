"""What `deploy` prints can be followed: commands that a shell reads, about objects that were rendered or are named."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deploy.test_manifests import CASES, Object, objects, of_kind, render
from sie_triton.cli import app
from sie_triton.deploy import DeployOptions, next_steps
from sie_triton.deploy.options import Kind


def steps_of(kind: Kind, options: DeployOptions) -> list[str]:
    lines = next_steps(options.checked(kind), Path("deploy"))
    assert lines[:2] == ["", "next:"]
    numbered = [re.fullmatch(r"  (\d+)\. (.*)", line) for line in lines[2:]]
    assert [int(match[1]) for match in numbered if match] == list(range(1, len(numbered) + 1))
    return [match[2] for match in numbered if match]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_steps_are_about_what_was_rendered(kind: Kind, options: DeployOptions, repository: Path) -> None:
    files = render(kind, options, repository)
    steps = steps_of(kind, options)
    assert "kubectl apply -k deploy" in steps
    names = {(found["kind"].lower(), found["metadata"]["name"]) for found in objects(files) if "metadata" in found}
    for step in steps:
        if step.startswith(("kubectl", "curl")):
            done = subprocess.run(["bash", "-n", "-c", step], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        for found, name in re.findall(r"\b(deployment|inferenceservice)/([\w-]+)", step):
            assert (found, name) in names
        if match := re.search(r"port-forward service/([\w-]+) 8080:(\d+)", step):
            assert ("service", match[1]) in names or match[1] == "sie-triton-transformer"
    _secrets_are_made(files, steps)
    assert any("prometheus-adapter.yaml" in step for step in steps) == (options.autoscaler == "hpa")
    assert any("job" in shlex.split(step, comments=True) for step in steps) == (options.fill is not None)


def _secrets_are_made(files: dict[str, list[Object]], steps: list[str]) -> None:
    """Every Secret that a pod or an Ingress names is one that a step makes."""
    text = str(list(files.values()))
    named = set(re.findall(r"'secretName': '([\w-]+)'|'secretRef': \{'name': '([\w-]+)'", text))
    for name in {first or second for first, second in named}:
        assert any(re.search(rf"create secret (generic|tls) {name} ", step) for step in steps), name


def test_another_namespace_is_made_and_named(repository: Path) -> None:
    steps = steps_of("kubernetes", DeployOptions(namespace="prod", api_keys_secret="keys"))
    assert "kubectl create namespace prod" in steps
    [secret] = [step for step in steps if "secret generic" in step]
    assert secret == "kubectl -n prod create secret generic keys --from-file=keys.txt"
    assert all("-n prod " in step for step in steps if re.match(r"kubectl (?!apply|create namespace)", step))


def test_the_command_line_has_every_option_and_prints_the_steps(repository: Path, tmp_path: Path) -> None:
    arguments = ["deploy", "kubernetes", "-r", str(repository), "-o", str(tmp_path / "out"), "--fill", "build"]
    arguments += ["--image-pull-secret", "a", "--image-pull-secret", "b", "--node-selector", "pool=gpu"]
    arguments += ["--toleration", "gpu:NoSchedule", "--frontend-node-selector", "pool=web", "--memory-budget", "2GB"]
    arguments += ["--pin", "acme/a", "--pin", "acme/b", "--ingress-host", "a.example.org", "--gateway", "edge/public"]
    arguments += ["--access-mode", "ReadWriteOnce", "--queued-tokens", "2048", "--idle-evict-s", "60"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        Path(line).name for line in done.stdout.split() if line.endswith(".yaml")
    }
    assert "kubectl apply -k" in done.stderr
    options = DeployOptions(
        fill="build",
        image_pull_secret=("a", "b"),
        node_selector=("pool=gpu",),
        toleration=("gpu:NoSchedule",),
        frontend_node_selector=("pool=web",),
        memory_budget="2GB",
        pin=("acme/a", "acme/b"),
        ingress_host="a.example.org",
        gateway="edge/public",
        access_mode="ReadWriteOnce",
        queued_tokens=2048,
        idle_evict_s=60,
    )
    [found] = yaml.safe_load_all((tmp_path / "out" / "entry.yaml").read_text())
    expected = render("kubernetes", options, repository)
    assert found == expected["entry.yaml"][0]
    [deployment, *_] = yaml.safe_load_all((tmp_path / "out" / "frontend.yaml").read_text())
    assert deployment == of_kind(expected, "Deployment")["sie-triton-frontend"]
