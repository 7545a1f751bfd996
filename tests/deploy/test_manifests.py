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

from deploy.conftest import MODEL_ID
from sie_triton.deploy import DeployOptions, write_manifests
from sie_triton.deploy.kserve import render_kserve
from sie_triton.deploy.kubernetes import render_kubernetes
from sie_triton.deploy.options import Kind
from sie_triton.deploy.policies import GRPC_CLIENT
from sie_triton.deploy.sizing import measure

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="development dependency `kubernetes-validate`")

Object = dict[str, Any]

# The oldest that is still served by providers, and the newest whose schemas are at hand. Sleeping hooks are of 1.29.
VERSIONS = ("1.30", "1.37")
CUSTOM = {"ScaledObject", "InferenceService", "ServingRuntime", "Kustomization", "HTTPRoute"}
KINDS: tuple[Kind, ...] = ("kubernetes", "kserve")
SOURCES = (None, "pvc://shared/models/repository", "s3://bucket/prefix", "gs://bucket")
CASES = [
    (kind, DeployOptions(source=source, device=device, autoscaler=autoscaler, service_account="robot"))  # type: ignore[arg-type]
    for kind, source, device, autoscaler in product(KINDS, SOURCES, ("cpu", "cuda"), ("hpa", "keda", "none"))
]
# Whatever else can be asked for, with and without each other.
_PLACED = DeployOptions(
    image_pull_secret=("pull",),
    node_selector=("cloud.example.com/pool=gpu", "kubernetes.io/arch=amd64"),
    toleration=("nvidia.com/gpu", "dedicated=search:NoSchedule"),
    frontend_node_selector=("pool=web",),
    frontend_toleration=("pool=web:NoExecute",),
)
_DEMAND: tuple[tuple[Kind, DeployOptions], ...] = tuple(
    ("kubernetes", DeployOptions(device=device, autoscaler=scaler, source=source, memory_budget="2GB", pin=(MODEL_ID,)))  # type: ignore[arg-type]
    for device, scaler, source in (
        ("cpu", "hpa", None),
        ("cuda", "keda", None),
        ("cuda", "none", "s3://bucket/x"),
        ("cpu", "hpa", "pvc://shared/models/repository"),
    )
)
EXTRAS: tuple[tuple[Kind, DeployOptions], ...] = (
    *_DEMAND,
    ("kubernetes", _PLACED),
    ("kserve", _PLACED),
    ("kubernetes", DeployOptions(fill="build", access_mode="ReadWriteOnce", storage_class="fast")),
    ("kubernetes", DeployOptions(fill="gs://bucket/built", credentials_secret="robot", source="pvc://shared/a/b")),
    ("kserve", DeployOptions(fill="s3://bucket/built", device="cuda")),
    ("kubernetes", DeployOptions(ingress_host="embed.example.org", ingress_class="nginx", ingress_tls_secret="web")),
    ("kubernetes", DeployOptions(ingress_host="*.example.org", gateway="edge/public")),
    ("kubernetes", DeployOptions(tls_secret="inner", api_keys_secret="keys", source="s3://bucket/prefix")),
    ("kubernetes", DeployOptions(grpc=True, device="cuda", triton_replicas=1, queued_tokens=4096)),
    ("kserve", DeployOptions(grpc=True, api_keys_secret="keys")),
)
CASES += EXTRAS


def render(kind: Kind, options: DeployOptions, repository: Path) -> dict[str, list[Object]]:
    deployment = options.checked(kind)
    manifest = read_manifest(repository)
    size = measure(repository, manifest, deployment.device)
    return (render_kubernetes if kind == "kubernetes" else render_kserve)(manifest, size, deployment)


def objects(files: dict[str, list[Object]]) -> list[Object]:
    return [found for documents in files.values() for found in documents]


def of_kind(files: dict[str, list[Object]], kind: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in objects(files) if found["kind"] == kind}


def workloads(files: dict[str, list[Object]]) -> Iterator[tuple[str, Object]]:
    """Every pod template that serves, with the component that it is; KServe's parts as the pods that they become."""
    for deployment in of_kind(files, "Deployment").values():
        yield deployment["metadata"]["labels"]["app.kubernetes.io/component"], deployment["spec"]["template"]
    for runtime in of_kind(files, "ServingRuntime").values():
        [service] = of_kind(files, "InferenceService").values()
        predictor, transformer = (_without_extension(service["spec"][part]) for part in ("predictor", "transformer"))
        predictor["containers"] = runtime["spec"]["containers"]
        predictor["volumes"] = [*runtime["spec"]["volumes"], *predictor.get("volumes", ())]
        for component, part, spec in (("triton", "predictor", predictor), ("frontend", "transformer", transformer)):
            labels = {"serving.kserve.io/inferenceservice": service["metadata"]["name"], "component": part}
            annotations = service["spec"][part]["annotations"]
            yield component, {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _without_extension(part: Object) -> Object:
    """A component of an InferenceService without what is KServe's own: a pod's specification."""
    return {key: value for key, value in part.items() if key not in _EXTENSION}


_EXTENSION = {"minReplicas", "maxReplicas", "annotations", "deploymentStrategy", "model"}


def pods(files: dict[str, list[Object]]) -> Iterator[Object]:
    """Every pod template, that of the Job too."""
    for _, pod in workloads(files):
        yield pod
    for job in of_kind(files, "Job").values():
        yield job["spec"]["template"]


def frontend_of(files: dict[str, list[Object]]) -> Object:
    """The pod template of the frontends."""
    [pod] = [pod for component, pod in workloads(files) if component == "frontend"]
    return pod


def every_container(spec: Object) -> list[Object]:
    """All containers of a pod, those that start first too."""
    return [*spec.get("initContainers", ()), *spec["containers"]]


def is_a_step(container: Object, spec: Object) -> bool:
    """Whether a container ends before the pod serves."""
    return container in spec.get("initContainers", ()) and container.get("restartPolicy") != "Always"


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
        "Ingress",
        "Job",
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
            "secret",
        }
        containers = every_container(spec)
        mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
        assert len({container["name"] for container in containers}) == len(containers)
        for container in containers:
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["runAsUser"] == 1000
            assert set(container["resources"]["limits"]) >= {"memory"}
            if not is_a_step(container, spec) and "restartPolicy" not in spec:
                assert {"startupProbe", "livenessProbe"} <= set(container)
                # What starts before the frontend is ready when the frontend says so.
                assert "readinessProbe" in container or container.get("restartPolicy") == "Always"


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_objects_find_each_other(kind: Kind, options: DeployOptions, repository: Path) -> None:
    files = render(kind, options, repository)
    names = {(found["kind"], found["metadata"]["name"]) for found in objects(files) if "metadata" in found}
    assert len(names) == sum("metadata" in found for found in objects(files))
    labels = [pod["metadata"]["labels"] for pod in pods(files)]
    for selector in _selectors(files):
        assert sum(selector.items() <= candidate.items() for candidate in labels) == 1, selector
    for found in objects(files):
        assert found["kind"] == "Kustomization" or found["metadata"]["namespace"] == options.namespace
    settings, _ = frontend_settings(files)
    if options.on_demand:
        assert "triton.yaml" not in files
    else:
        _a_frontend_finds_the_tritons(files, settings)
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    assert settings.device == options.device
    _scalers_find_their_targets(files, names, options)
    [kustomization] = files["kustomization.yaml"]
    assert [*kustomization["resources"], "kustomization.yaml"] == list(files)


def frontend_settings(files: dict[str, list[Object]]) -> tuple[Settings, Object]:
    """What the frontend is told, and its container."""
    [container] = frontend_of(files)["spec"]["containers"]
    return Settings.from_environment({entry["name"]: entry["value"] for entry in container["env"]}), container


def _a_frontend_finds_the_tritons(files: dict[str, list[Object]], settings: Settings) -> None:
    [url] = settings.triton_urls
    host, port = url.removeprefix("dns://").split(":")
    service = of_kind(files, "Service")[host]["spec"]
    # A headless service translates no ports: what is named is what the pods listen on.
    assert (url.startswith("dns://"), service["clusterIP"]) == (True, "None")
    assert int(port) in {entry["port"] for entry in service["ports"]}
    assert all(entry["port"] == entry["targetPort"] for entry in service["ports"])
    listening = [
        argument.partition("=")[2]
        for component, pod in workloads(files)
        for argument in pod["spec"]["containers"][0].get("args", ())
        if component == "triton" and argument.startswith("--http-port=")
    ]
    assert listening == [port]


def _scalers_find_their_targets(
    files: dict[str, list[Object]], names: set[tuple[str, str]], options: DeployOptions
) -> None:
    scaled = [*of_kind(files, "HorizontalPodAutoscaler").values(), *of_kind(files, "ScaledObject").values()]
    assert len(scaled) == (0 if options.autoscaler == "none" else 1 if options.on_demand else 2)
    made_by_kserve = {"sie-triton-predictor", "sie-triton-transformer"} if "serving-runtime.yaml" in files else set()
    targets = {scaler["spec"]["scaleTargetRef"]["name"] for scaler in scaled}
    assert len(targets) == len(scaled)
    for target in targets:
        assert ("Deployment", target) in names or target in made_by_kserve
    for deployment in of_kind(files, "Deployment").values():
        assert ("replicas" in deployment["spec"]) == (options.autoscaler == "none")


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
                        if "podSelector" in peer and GRPC_CLIENT not in peer["podSelector"]["matchLabels"]:
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
        assert "initContainers" not in pod["spec"]
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
        assert peer["podSelector"]["matchLabels"].items() <= frontend_of(files)["metadata"]["labels"].items()
        assert [entry["port"] for entry in inference["ports"]] == [port]
        assert metrics["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}}]
        assert [entry["port"] for entry in metrics["ports"]] == [8002]


def test_nvidias_triton_serves_what_it_was_given_and_loads_nothing_else(repository: Path) -> None:
    for kind in KINDS:
        files = render(kind, DeployOptions(device="cuda"), repository)
        [container] = [pod["spec"]["containers"][0] for component, pod in workloads(files) if component == "triton"]
        assert container["args"][0] == "tritonserver"
        assert {"--model-config-name=cuda", "--model-control-mode=none", "--exit-on-error=true"} <= set(
            container["args"]
        )
        assert container["resources"]["requests"]["nvidia.com/gpu"] == "1"
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        served = {int(a.partition("=")[2]) for a in container["args"] if a.startswith("--http-port")}
        assert {container["readinessProbe"]["httpGet"]["port"]} == served


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_a_frontend_has_the_time_that_it_takes_to_leave(kind: Kind, options: DeployOptions, repository: Path) -> None:
    """It waits by itself, from SIGTERM on: with a hook as well its `/readyz` would say ok for the first half."""
    files = render(kind, options, repository)
    spec = frontend_of(files)["spec"]
    settings, container = frontend_settings(files)
    assert "lifecycle" not in container
    probe = container["readinessProbe"]
    assert settings.drain_delay_s >= probe["periodSeconds"] * probe["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= settings.drain_delay_s + settings.shutdown_grace_s + 5
    assert settings.log_format == "json"


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_no_pod_goes_before_another_serves(kind: Kind, options: DeployOptions, repository: Path) -> None:
    """Without a spare GPU the old pod must make room, but never the only one."""
    files = render(kind, options, repository)
    strategies = {
        deployment["metadata"]["labels"]["app.kubernetes.io/component"]: deployment["spec"]["strategy"]
        for deployment in of_kind(files, "Deployment").values()
    }
    for service in of_kind(files, "InferenceService").values():
        strategies["triton"] = service["spec"]["predictor"]["deploymentStrategy"]
        strategies["frontend"] = service["spec"]["transformer"]["deploymentStrategy"]
    for component, strategy in strategies.items():
        on_gpu = options.device == "cuda" and (component == "triton" or options.on_demand)
        surge = {"maxSurge": 1, "maxUnavailable": 0}
        if on_gpu and options.triton_replicas > 1:
            surge = {"maxSurge": 0, "maxUnavailable": 1}
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": surge}
    budgets = of_kind(files, "PodDisruptionBudget")
    assert {name.removeprefix("sie-triton-") for name in budgets} == set(strategies)
    for component, pod in workloads(files):
        spreading = {entry["topologyKey"] for entry in pod["spec"]["topologySpreadConstraints"]}
        assert spreading == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        if component == "triton":
            # Its SIGTERM comes when others know that it leaves.
            [container] = pod["spec"]["containers"]
            wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            drain = 30 if container["args"][0] == "triton" else _number(container["args"], "--exit-timeout-secs")
            assert pod["spec"]["terminationGracePeriodSeconds"] >= wait + drain + 5
    for deployment in of_kind(files, "Deployment").values():
        if deployment["metadata"]["name"].endswith("-triton"):
            # Longer than frontends need to learn a new address: they look every two seconds.
            assert deployment["spec"]["minReadySeconds"] > 5


def _number(arguments: list[str], option: str) -> int:
    [value] = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{option}=")]
    return int(value)


def test_an_object_stores_files_fit_into_the_scratch_volume(repository: Path) -> None:
    tokenizer = next(repository.glob("*/1/tokenizer.json"))
    tokenizer.write_bytes(b" " * (300 << 20))
    for source, least in (("s3://bucket", 300), (None, 0)):
        files = render("kubernetes", DeployOptions(source=source), repository)
        spec = frontend_of(files)["spec"]
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
