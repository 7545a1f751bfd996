"""Everything rendered is what the API server accepts, refers to what exists, and gives up what it does not need."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from sie_frontend.manifest import read_manifest
from sie_frontend.settings import Settings
from sie_frontend.watch.metrics import Metrics

from deploy.metric_names import TRITON_METRICS, exposed_names
from sie_triton.deploy import DeployOptions, write_manifests
from sie_triton.deploy.kserve import render_kserve
from sie_triton.deploy.kubernetes import render_kubernetes
from sie_triton.deploy.options import Kind
from sie_triton.deploy.sizing import measure

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="development dependency `kubernetes-validate`")
promql_parser = pytest.importorskip("promql_parser", reason="development dependency `promql-parser`")

Object = dict[str, Any]

# The oldest that is still served by providers, and the newest whose schemas are at hand. Sleeping hooks are of 1.29.
VERSIONS = ("1.30", "1.37")
CUSTOM = {"ScaledObject", "InferenceService", "ServingRuntime", "Kustomization"}
KINDS: tuple[Kind, ...] = ("kubernetes", "kserve")
SOURCES = (None, "pvc://shared/models/repository", "s3://bucket/prefix", "gs://bucket")
CASES = [
    (kind, DeployOptions(source=source, device=device, autoscaler=autoscaler, service_account="robot"))  # type: ignore[arg-type]
    for kind, source, device, autoscaler in product(KINDS, SOURCES, ("cpu", "cuda"), ("hpa", "keda", "none"))
]


def render(kind: Kind, options: DeployOptions, repository: Path) -> dict[str, list[Object]]:
    deployment = options.checked(kind)
    manifest = read_manifest(repository)
    size = measure(repository, manifest, deployment.device)
    return (render_kubernetes if kind == "kubernetes" else render_kserve)(manifest, size, deployment)


def objects(files: dict[str, list[Object]]) -> list[Object]:
    return [found for documents in files.values() for found in documents]


def of_kind(files: dict[str, list[Object]], kind: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in objects(files) if found["kind"] == kind}


def pods(files: dict[str, list[Object]]) -> Iterator[Object]:
    """Every pod template; KServe's runtime as the pod that it becomes."""
    for deployment in of_kind(files, "Deployment").values():
        yield deployment["spec"]["template"]
    for runtime in of_kind(files, "ServingRuntime").values():
        [service] = of_kind(files, "InferenceService").values()
        predictor = {key: value for key, value in service["spec"]["predictor"].items() if key in _POD_FIELDS}
        containers, volumes = runtime["spec"]["containers"], runtime["spec"]["volumes"]
        yield {
            "metadata": {"labels": {"serving.kserve.io/inferenceservice": service["metadata"]["name"]}},
            "spec": {**predictor, "containers": containers, "volumes": volumes},
        }


_POD_FIELDS = {"automountServiceAccountToken", "enableServiceLinks", "securityContext", "serviceAccountName"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_api_server_accepts_it(version: str, repository: Path) -> None:
    distinct: dict[str, Object] = {}
    for kind, options in CASES:
        files = render(kind, options, repository)
        checked = [found for found in objects(files) if found["kind"] not in CUSTOM]
        checked += [{"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {"name": "x"}} for pod in pods(files)]
        distinct |= {json.dumps(found): found for found in checked}
    assert {found["kind"] for found in distinct.values()} == {
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "PodDisruptionBudget",
        "Service",
    }
    for found in distinct.values():
        kubernetes_validate.validate(found, version, strict=True)


def test_the_validation_notices_a_mistake(repository: Path) -> None:
    [deployment, *_] = of_kind(render("kubernetes", DeployOptions(), repository), "Deployment").values()
    deployment["spec"]["template"]["spec"]["containers"][0]["port"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_pods_are_restricted(kind: Kind, options: DeployOptions, repository: Path) -> None:
    """The Pod Security Standard *restricted*, and a read-only root besides."""
    for pod in pods(render(kind, options, repository)):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert {next(key for key in volume if key != "name") for volume in spec["volumes"]} <= {
            "emptyDir",
            "persistentVolumeClaim",
        }
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["runAsUser"] == 1000
            assert set(container["resources"]["limits"]) >= {"memory"}
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_objects_find_each_other(kind: Kind, options: DeployOptions, repository: Path) -> None:
    files = render(kind, options, repository)
    names = {(found["kind"], found["metadata"]["name"]) for found in objects(files) if "metadata" in found}
    assert len(names) == sum("metadata" in found for found in objects(files))
    labels = [
        deployment["spec"]["template"]["metadata"]["labels"] for deployment in of_kind(files, "Deployment").values()
    ]
    if kind == "kserve":
        labels.append({"serving.kserve.io/inferenceservice": "sie-triton", "component": "predictor"})
    for selector in _selectors(files):
        assert sum(selector.items() <= candidate.items() for candidate in labels) == 1, selector
    for service in of_kind(files, "Service").values():
        assert service["metadata"]["namespace"] == options.namespace
    frontend = of_kind(files, "Deployment")["sie-triton-frontend"]["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in frontend["env"]}
    settings = Settings.from_environment(environment)
    [url] = settings.triton_urls
    host, port = url.removeprefix("dns://").split(":")
    service = of_kind(files, "Service")[host]["spec"]
    # A headless service translates no ports: what is named is what the pods listen on.
    assert (url.startswith("dns://"), service["clusterIP"]) == (True, "None")
    assert int(port) in {entry["port"] for entry in service["ports"]}
    assert all(entry["port"] == entry["targetPort"] for entry in service["ports"])
    listening = [
        argument.partition("=")[2]
        for pod in pods(files)
        for argument in pod["spec"]["containers"][0].get("args", ())
        if argument.startswith("--http-port=")
    ]
    assert listening == [port]
    assert (settings.host, settings.port) == ("0.0.0.0", frontend["ports"][0]["containerPort"])
    assert settings.device == options.device
    scaled = [*of_kind(files, "HorizontalPodAutoscaler").values(), *of_kind(files, "ScaledObject").values()]
    assert len(scaled) == (0 if options.autoscaler == "none" else 2)
    for scaler in scaled:
        target = scaler["spec"]["scaleTargetRef"]["name"]
        assert ("Deployment", target) in names or (kind == "kserve" and target == "sie-triton-predictor")
    for deployment in of_kind(files, "Deployment").values():
        assert ("replicas" in deployment["spec"]) == (options.autoscaler == "none")
    [kustomization] = files["kustomization.yaml"]
    assert [*kustomization["resources"], "kustomization.yaml"] == list(files)


def _selectors(files: dict[str, list[Object]]) -> Iterator[dict[str, str]]:
    for found in objects(files):
        spec = found.get("spec", {})
        match found["kind"]:
            case "Service":
                yield spec["selector"]
            case "Deployment" | "PodDisruptionBudget":
                yield spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                yield spec["podSelector"]["matchLabels"]
                for rule in [*spec["ingress"], *spec["egress"]]:
                    for peer in [*rule.get("from", ()), *rule.get("to", ())]:
                        if "podSelector" in peer:
                            yield peer["podSelector"]["matchLabels"]
            case _:
                pass


def test_a_claim_is_mounted_whole_and_read_only(repository: Path) -> None:
    """A mount of the repository's own folder would keep the old one when a build exchanges it."""
    files = render("kubernetes", DeployOptions(), repository)
    [claim] = of_kind(files, "PersistentVolumeClaim")
    for pod in pods(files):
        [volume] = [volume for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume]
        assert volume["persistentVolumeClaim"] == {"claimName": claim, "readOnly": True}
        [mount] = [m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == volume["name"]]
        assert mount == {"name": "repository", "mountPath": "/models", "readOnly": True}
    triton = of_kind(files, "Deployment")["sie-triton-triton"]["spec"]["template"]["spec"]["containers"][0]
    assert "--repository=/models/repository" in triton["args"]


@pytest.mark.parametrize("uri", ["s3://bucket/prefix", "gs://bucket"])
def test_an_object_store_is_read_by_triton_and_by_the_frontend(uri: str, repository: Path) -> None:
    files = render("kubernetes", DeployOptions(source=uri, credentials_secret="keys"), repository)
    assert not of_kind(files, "PersistentVolumeClaim")
    for pod in pods(files):
        assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "keys"}}]
    triton, frontend = (
        of_kind(files, "Deployment")[f"sie-triton-{name}"]["spec"]["template"]["spec"]["containers"][0]
        for name in ("triton", "frontend")
    )
    assert f"--model-repository={uri}" in triton["args"]
    assert {"name": "SIE_TRITON_REPOSITORY", "value": uri} in frontend["env"]
    for policy in of_kind(files, "NetworkPolicy").values():
        ports = {entry["port"] for rule in policy["spec"]["egress"] for entry in rule["ports"]}
        assert {443, 53} <= ports


def test_triton_is_reached_by_frontends_and_monitoring_only(repository: Path) -> None:
    for kind, port in (("kubernetes", 8000), ("kserve", 8080)):
        files = render(kind, DeployOptions(monitoring_namespace="watch"), repository)  # type: ignore[arg-type]
        policy = of_kind(files, "NetworkPolicy")["sie-triton-triton"]["spec"]
        assert policy["egress"] == []
        inference, metrics = policy["ingress"]
        [peer] = inference["from"]
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "frontend"
        assert [entry["port"] for entry in inference["ports"]] == [port]
        assert metrics["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}}]
        assert [entry["port"] for entry in metrics["ports"]] == [8002]


def test_nvidias_triton_serves_what_it_was_given_and_loads_nothing_else(repository: Path) -> None:
    for kind in KINDS:
        files = render(kind, DeployOptions(device="cuda"), repository)
        containers = [pod["spec"]["containers"][0] for pod in pods(files)]
        [container] = [c for c in containers if c["name"] in ("triton", "kserve-container")]
        assert container["args"][0] == "tritonserver"
        assert {"--model-config-name=cuda", "--model-control-mode=none", "--exit-on-error=true"} <= set(
            container["args"]
        )
        assert container["resources"]["requests"]["nvidia.com/gpu"] == "1"
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        served = {int(a.partition("=")[2]) for a in container["args"] if a.startswith("--http-port")}
        assert {container["readinessProbe"]["httpGet"]["port"]} == served


def test_scaling_looks_at_metrics_that_exist(repository: Path) -> None:
    known = TRITON_METRICS | exposed_names(Metrics().registry)
    for kind in KINDS:
        files = render(kind, DeployOptions(autoscaler="hpa"), repository)
        for hpa in of_kind(files, "HorizontalPodAutoscaler").values():
            for metric in hpa["spec"]["metrics"]:
                assert metric["type"] == "Resource" or metric["pods"]["metric"]["name"] in known
        for scaled in of_kind(render(kind, DeployOptions(autoscaler="keda"), repository), "ScaledObject").values():
            for trigger in scaled["spec"]["triggers"]:
                if trigger["type"] == "prometheus":
                    expression = promql_parser.parse(trigger["metadata"]["query"])
                    [selector] = expression.expr.args
                    assert selector.vector_selector.name in known
                    assert float(trigger["metadata"]["threshold"]) > 0


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_a_frontend_has_the_time_that_it_takes_to_leave(kind: Kind, options: DeployOptions, repository: Path) -> None:
    """It waits by itself, from SIGTERM on: with a hook as well its `/readyz` would say ok for the first half."""
    frontend = of_kind(render(kind, options, repository), "Deployment")["sie-triton-frontend"]
    spec = frontend["spec"]["template"]["spec"]
    [container] = spec["containers"]
    assert "lifecycle" not in container
    settings = Settings.from_environment({entry["name"]: entry["value"] for entry in container["env"]})
    probe = container["readinessProbe"]
    assert settings.drain_delay_s >= probe["periodSeconds"] * probe["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= settings.drain_delay_s + settings.shutdown_grace_s + 5
    assert settings.log_format == "json"


def test_an_object_stores_files_fit_into_the_scratch_volume(repository: Path) -> None:
    tokenizer = next(repository.glob("*/1/tokenizer.json"))
    tokenizer.write_bytes(b" " * (300 << 20))
    for source, least in (("s3://bucket", 300), (None, 0)):
        files = render("kubernetes", DeployOptions(source=source), repository)
        spec = of_kind(files, "Deployment")["sie-triton-frontend"]["spec"]["template"]["spec"]
        [scratch] = [volume for volume in spec["volumes"] if volume["name"] == "scratch"]
        size = int(scratch["emptyDir"]["sizeLimit"].removesuffix("Mi"))
        assert size > least
        assert (size == 128) == (source is None)


def test_a_repository_built_anew_rolls_out(repository: Path) -> None:
    def hashes() -> set[str]:
        files = render("kubernetes", DeployOptions(), repository)
        return {pod["metadata"]["annotations"]["sie-triton/manifest-sha256"] for pod in pods(files)}

    before = hashes()
    manifest = (repository / "manifest.json").read_text()
    (repository / "manifest.json").write_text(manifest.replace('"k' + "k" * 63, '"j' + "k" * 63))
    assert len(before) == 1
    assert hashes() != before


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@pytest.mark.parametrize("kind", KINDS)
def test_kustomize_reads_the_folder(kind: Kind, repository: Path, tmp_path: Path) -> None:
    write_manifests(kind, repository, tmp_path / "out", DeployOptions(namespace="prod"))
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path / "out")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    files = render(kind, DeployOptions(namespace="prod"), repository)
    assert len(built) == len(objects(files)) - 1
    assert {found["metadata"]["namespace"] for found in built} == {"prod"}
