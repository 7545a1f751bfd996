"""Keys where frontends are deployed: a Secret in a cluster, a folder under Compose."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from sie_frontend.settings import Settings

from deploy.conftest import ROOT
from deploy.test_compose import BASE, load, services
from deploy.test_manifests import VERSIONS, frontend_of, objects, of_kind, render
from sie_triton.deploy import DeployOptions
from sie_triton.deploy.options import Kind

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="development dependency `kubernetes-validate`")
jsonschema = pytest.importorskip("jsonschema", reason="comes with the development dependency `check-jsonschema`")

KEYED = DeployOptions(api_keys_secret="sie-keys")
COMPOSE = ROOT / "docker-compose.keys.yml"


@pytest.mark.parametrize("kind", ["kubernetes", "kserve"])
def test_a_secret_gives_the_frontends_their_keys(kind: Kind, repository: Path) -> None:
    files = render(kind, KEYED, repository)
    for version in VERSIONS:
        for found in objects(files):
            if found["kind"] in ("Deployment", "NetworkPolicy", "Service"):
                kubernetes_validate.validate(found, version, strict=True)
    template = frontend_of(files)
    [container] = template["spec"]["containers"]
    settings = Settings.from_environment({entry["name"]: entry["value"] for entry in container["env"]})
    assert settings.api_keys_file is not None
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "keys"]
    # A mount of one file (`subPath`) would not follow the Secret.
    assert "subPath" not in mount and mount["readOnly"] is True
    assert Path(settings.api_keys_file).parent == Path(mount["mountPath"])
    [volume] = [volume for volume in template["spec"]["volumes"] if volume["name"] == "keys"]
    assert volume["secret"] == {"secretName": "sie-keys"}
    # Metrics are at a port that only monitoring reaches, and Prometheus is told so.
    assert settings.admin_host == "0.0.0.0"
    assert settings.admin_port != settings.port
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(settings.admin_port)
    rules = of_kind(files, "NetworkPolicy")["sie-triton-frontend"]["spec"]["ingress"]
    [admin] = [rule for rule in rules if rule["ports"][0]["port"] == settings.admin_port]
    assert "namespaceSelector" in admin["from"][0]
    # Probes have no key.
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": settings.port}
    assert "sie-keys" not in json.dumps(render(kind, DeployOptions(), repository))


def test_compose_takes_a_folder_of_keys() -> None:
    schema = json.loads(
        resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    )
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(load(COMPOSE))] == []
    assert set(services(COMPOSE)) == {"frontend"}
    found = services(COMPOSE, KEYS_FOLDER="/etc/sie")["frontend"]
    settings = Settings.from_environment(services(BASE)["frontend"]["environment"] | found["environment"])
    [mount] = found["volumes"]
    assert (mount["source"], mount["read_only"]) == ("/etc/sie", True)
    assert settings.api_keys_file == f"{mount['target']}/keys.txt"
    assert settings.admin_port == 8081
    assert "ports" not in found, "metrics are not published"
