"""The compose files: valid by the specification's schema, and as closed as they claim."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from sie_frontend.settings import Settings

from deploy.conftest import ROOT
from deploy.dockerfile import read_stages
from sie_triton import __version__
from sie_triton.deploy.options import DEFAULT_TRITON_IMAGE, DeployOptions
from sie_triton.deploy.servers import triton_arguments

check_jsonschema = pytest.importorskip("check_jsonschema", reason="development dependency `check-jsonschema`")
jsonschema = pytest.importorskip("jsonschema", reason="comes with the development dependency `check-jsonschema`")

BASE, GPU = ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}|\$\$")


class _Loader(yaml.SafeLoader):
    """YAML with Compose's own `!reset`, which removes what the file below it set."""


_Loader.add_constructor("!reset", lambda loader, node: None)


def load(path: Path, **variables: str) -> dict[str, Any]:
    """A compose file with its variables put in, as Compose does before it looks at anything else."""

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        assert match[2] is not None, f"`{match[0]}` in {path.name} has no default"
        return variables.get(match[1]) or match[2]

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(entry) for entry in node]
        return _VARIABLE.sub(fill, node) if isinstance(node, str) else node

    content: dict[str, Any] = filled(yaml.load(path.read_text(encoding="utf-8"), _Loader))
    return content


def services(path: Path = BASE, **variables: str) -> dict[str, Any]:
    found: dict[str, Any] = load(path, **variables)["services"]
    return found


@pytest.mark.parametrize("path", [BASE, GPU], ids=lambda path: path.name)
def test_the_schema_of_the_compose_specification(path: Path) -> None:
    schema = json.loads(
        resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    )
    validator = jsonschema.validators.validator_for(schema)(schema)
    content = load(path)
    if path == GPU:
        del content["services"]["triton"]["build"]  # as `!reset` has Compose do
    assert [error.message for error in validator.iter_errors(content)] == []
    content["services"]["frontend"]["prots"] = []
    assert not validator.is_valid(content), "the schema must notice a misspelt key"


@pytest.mark.parametrize("name", ["builder", "triton", "frontend"])
def test_services_give_up_what_they_do_not_need(name: str) -> None:
    service = services()[name]
    assert service["user"] == "1000:1000"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+g", service["mem_limit"])
    assert service["pids_limit"] > 0
    assert "privileged" not in service
    assert all(mount.startswith("/tmp:") for mount in service["tmpfs"])


def test_only_the_frontend_is_published_and_on_loopback() -> None:
    found = services(SIE_PORT="9000")
    assert {name for name, service in found.items() if "ports" in service} == {"frontend"}
    assert found["frontend"]["ports"] == ["127.0.0.1:9000:8080"]
    assert services()["frontend"]["ports"] == ["127.0.0.1:8080:8080"]


def test_nobody_but_the_frontend_reaches_triton() -> None:
    content = load(BASE)
    assert content["networks"] == {"engine": {"internal": True}}
    members = {name for name, service in content["services"].items() if "engine" in service.get("networks", ())}
    assert members == {"triton", "frontend"}
    assert content["services"]["triton"]["networks"] == ["engine"]


def test_up_means_ready() -> None:
    found = services()
    after = {
        name: {other: entry["condition"] for other, entry in service.get("depends_on", {}).items()}
        for name, service in found.items()
    }
    assert after == {
        "builder": {},
        "triton": {"builder": "service_completed_successfully"},
        "frontend": {"builder": "service_completed_successfully", "triton": "service_healthy"},
    }
    assert {name for name, service in found.items() if "healthcheck" in service} == {"triton", "frontend"}
    assert found["builder"]["restart"] == "no"


def test_other_models_make_other_containers() -> None:
    """Triton and the frontend read the repository when they start: a running pair must not be kept."""
    models = "a/b c/d"
    for name, service in services(MODELS=models).items():
        if name == "builder":
            assert service["environment"]["MODELS"] == models
        else:
            assert service["labels"] == {"sie-triton.models": models}
            assert service["depends_on"]["builder"]["restart"] is True


def test_the_repository_is_a_folder_of_its_volume() -> None:
    """A build renames it, and writes its lock beside it; only the builder may."""
    found = services()
    paths = {found["builder"]["environment"]["SIE_TRITON_REPOSITORY"]}
    paths |= {found["frontend"]["environment"]["SIE_TRITON_REPOSITORY"]}
    paths |= {argument.partition("=")[2] for argument in found["triton"]["command"] if "repository=" in argument}
    assert paths == {"/models/repository"}
    for name, service in found.items():
        [mount] = [mount for mount in service["volumes"] if mount.get("target") == "/models"]
        assert mount["source"] == "models"
        assert mount.get("read_only", False) == (name != "builder")
        assert mount.get("volume", {}).get("nocopy", False) == (name != "builder")


def test_the_builder_keeps_its_downloads_and_reads_the_bundles() -> None:
    builder = services()["builder"]
    targets = {mount["target"]: mount for mount in builder["volumes"]}
    home = dict(entry.partition("=")[::2] for env in read_stages()["builder"].all("ENV") for entry in env.value.split())
    assert Path(home["HF_HOME"]).is_relative_to("/cache")
    assert home["XDG_CACHE_HOME"] == "/cache"
    assert set(targets) == {"/models", "/cache", "/bundles"}
    assert (ROOT / targets["/bundles"]["source"]).is_dir()
    assert builder["command"] == ["--bundles", targets["/bundles"]["target"]]


def test_images_are_stages_of_the_dockerfile() -> None:
    stages = read_stages()
    for service in services().values():
        target = service["build"]["target"]
        assert target in stages
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert service["image"] == f"sie-triton-{target}:{__version__}"


def test_the_frontends_settings_are_settings() -> None:
    for device, path in (("cpu", BASE), ("cuda", GPU)):
        environment = services()["frontend"]["environment"] | services(path)["frontend"]["environment"]
        settings = Settings.from_environment(environment)
        assert settings.triton_url == "triton:8000"
        assert settings.port == 8080
        assert settings.repository == "/models/repository"
        assert settings.device == device


def test_cuda_replaces_the_image_and_the_command_and_nothing_else() -> None:
    override = load(GPU)
    assert set(override["services"]) == {"triton", "frontend"}
    triton = override["services"]["triton"]
    assert triton["image"] == DEFAULT_TRITON_IMAGE
    assert triton["build"] is None, "or Compose would build our server under NVIDIA's name"
    assert set(triton) == {"image", "build", "command", "mem_limit", "deploy"}
    [device] = triton["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    cluster = triton_arguments(DeployOptions(device="cuda").checked("kubernetes"))
    assert triton["command"] == cluster, "the same server as in a cluster"
    assert services(GPU, TRITON_TAG="24.10-py3")["triton"]["image"].endswith(":24.10-py3")


def test_the_cpu_server_gets_the_same_command_as_in_a_cluster() -> None:
    assert services()["triton"]["command"] == triton_arguments(DeployOptions().checked("kubernetes"))


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server on loopback that gives one answer; its port, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("service", "port", "path"), [("triton", 8000, "/v2/health/ready"), ("frontend", 8080, "/readyz")]
)
def test_health_checks_need_only_python(service: str, port: int, path: str) -> None:
    kind, program, flag, code = services()[service]["healthcheck"]["test"]
    assert (kind, program, flag) == ("CMD", "python3", "-c")

    def status(there: int) -> int:
        command = [sys.executable, "-I", "-c", code.replace(f":{port}/", f":{there}/")]
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode

    with answering(200) as (there, asked):
        assert status(there) == 0
        assert asked == [path]
    with answering(503) as (there, _):
        assert status(there) == 1
    assert status(there) == 1, "nobody listens any more"
