"""What stands in front of a frontend is no stricter than the frontend, and whoever may not come does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from sie_frontend.settings import Settings

from deploy.test_manifests import frontend_settings, of_kind, render
from sie_triton.deploy import DeployOptions
from sie_triton.deploy.options import Kind
from sie_triton.deploy.policies import GRPC_CLIENT

NGINX = "nginx.ingress.kubernetes.io/"


@pytest.mark.parametrize("kind", ["kubernetes", "kserve"])
def test_limits_in_front_are_the_frontends(kind: Kind, repository: Path) -> None:
    host = None if kind == "kserve" else "embed.example.org"
    files = render(kind, DeployOptions(ingress_host=host), repository)
    # KServe hands its Ingress the annotations of the InferenceService.
    [found] = of_kind(files, "InferenceService" if kind == "kserve" else "Ingress").values()
    annotations = found["metadata"]["annotations"]
    settings = Settings()
    assert int(annotations[f"{NGINX}proxy-body-size"].removesuffix("m")) * 2**20 >= settings.max_body_bytes
    for timeout in ("proxy-read-timeout", "proxy-send-timeout"):
        assert int(annotations[f"{NGINX}{timeout}"]) > max(settings.triton_timeout_s, settings.body_timeout_s)
    assert annotations[f"{NGINX}proxy-request-buffering"] == "off"
    # Another frontend gets a request only if the first one has not seen it.
    assert "non_idempotent" not in annotations[f"{NGINX}proxy-next-upstream"]


def test_an_ingress_leads_to_the_frontend(repository: Path) -> None:
    options = DeployOptions(ingress_host="a.example.org", ingress_class="nginx", ingress_tls_secret="web", name="emb")
    files = render("kubernetes", options, repository)
    [ingress] = of_kind(files, "Ingress").values()
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    service = of_kind(files, "Service")[path["backend"]["service"]["name"]]
    assert path["backend"]["service"]["port"]["number"] in {port["port"] for port in service["spec"]["ports"]}
    assert ingress["spec"]["tls"] == [{"hosts": ["a.example.org"], "secretName": "web"}]
    assert ingress["spec"]["ingressClassName"] == "nginx"


def test_a_gateway_takes_the_place_of_an_ingress(repository: Path) -> None:
    options = DeployOptions(ingress_host="a.example.org", gateway="edge/public")
    files = render("kubernetes", options, repository)
    assert not of_kind(files, "Ingress")
    [route] = of_kind(files, "HTTPRoute").values()
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "edge"}]
    [rule] = route["spec"]["rules"]
    [backend] = rule["backendRefs"]
    assert backend["name"] in of_kind(files, "Service")


def test_frontends_that_speak_tls_are_asked_so(repository: Path) -> None:
    options = DeployOptions(tls_secret="inner", ingress_host="a.example.org")
    files = render("kubernetes", options, repository)
    settings, container = frontend_settings(files)
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "tls"]
    # The names that `kubectl create secret tls` gives the files, in a folder that follows the Secret.
    assert settings.tls_certificate == f"{mount['mountPath']}/tls.crt"
    assert settings.tls_key == f"{mount['mountPath']}/tls.key"
    assert "subPath" not in mount
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    [ingress] = of_kind(files, "Ingress").values()
    assert ingress["metadata"]["annotations"][f"{NGINX}backend-protocol"] == "HTTPS"
    # Prometheus asks the port of metrics, which speaks plain HTTP.
    assert settings.admin_port == 8081


@pytest.mark.parametrize("kind", ["kubernetes", "kserve"])
def test_grpc_is_for_labelled_pods_and_off_by_default(kind: Kind, repository: Path) -> None:
    for asked in (False, True):
        files = render(kind, DeployOptions(grpc=asked, device="cuda"), repository)
        ports = {port["name"] for port in of_kind(files, "Service")["sie-triton-triton"]["spec"]["ports"]}
        assert ("grpc" in ports) == asked
        rules = of_kind(files, "NetworkPolicy")["sie-triton-triton"]["spec"]["ingress"]
        opened = [rule for rule in rules if rule["ports"][0]["port"] == 8001]
        assert len(opened) == asked
        for rule in opened:
            assert rule["from"] == [{"podSelector": {"matchLabels": {GRPC_CLIENT: "sie-triton"}}}]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_who_may_load_models_is_in_the_same_pod(device: str, repository: Path) -> None:
    """The control port of a Triton that loads on demand: beyond loopback it does not exist."""
    options = DeployOptions(load="on-demand", device=device, pin=("a",), idle_evict_s=600)  # type: ignore[arg-type]
    files = render("kubernetes", options, repository)
    settings, container = frontend_settings(files)
    assert (settings.on_demand, settings.pinned_ids, settings.idle_evict_s) == (True, ("a",), 600)
    [deployment] = of_kind(files, "Deployment").values()
    spec = deployment["spec"]["template"]["spec"]
    sidecars = [c for c in spec["initContainers"] if c.get("restartPolicy") == "Always"]
    if device == "cpu":
        assert (container["args"], sidecars) == (["serve", "--log-dir=/tmp/log"], [])
    else:
        [triton] = sidecars
        assert {"--http-address=127.0.0.1", "--model-control-mode=explicit"} <= set(triton["args"])
        assert settings.triton_urls == ("127.0.0.1:8000",)
        assert triton["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for policy in of_kind(files, "NetworkPolicy").values():
        assert 8000 not in {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}


def test_a_pod_with_a_budget_reserves_the_budget(repository: Path) -> None:
    def memory(budget: str | None) -> int:
        files = render("kubernetes", DeployOptions(load="on-demand", memory_budget=budget), repository)
        return int(frontend_settings(files)[1]["resources"]["requests"]["memory"].removesuffix("Mi"))

    assert memory("256MiB") < memory("512MiB") < memory(None)
    # More than all models take is never needed.
    assert memory("64GiB") == memory(None)
