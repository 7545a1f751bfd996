"""Options are checked before anything is rendered: nothing that Kubernetes would refuse, or read otherwise, passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_triton.backends.releases import Release, onnx_runtime
from sie_triton.deploy.options import DEFAULT_TRITON_IMAGE, DeployOptions, Kind
from sie_triton.deploy.scheduling import tolerations
from sie_triton.deploy.source import Source, parse_source
from sie_triton.diagnostics import DiagnosticError

BAD: dict[str, list[object]] = {
    "name": ["", "Sie", "1sie", "sie_triton", "sie-", "a" * 53, "sie\n", "sie: {}", "sié", "-sie", "a.b"],
    "namespace": ["", "Prod", "prod ", "a" * 64, "../x", 'x"} or up{y="'],
    "monitoring_namespace": ["", "a b"],
    "source": [
        "",
        "models",
        "/models",
        "file:///x",
        "pvc://",
        "pvc://Claim",
        "pvc://c/../d",
        "s3://",
        "s3://bucket/a b",
        "gs://bucket/$(x)",
        "s3://bucket/a;b",
        "http://bucket/x",
        "pvc://c/d\n",
        "s3:// b",
        "as://a/b",
    ],
    "triton_image": ["", "UPPER CASE", "image:tag:tag", "image@sha256:abc", "image\n", "-image", "image;rm"],
    "frontend_image": ["image "],
    "triton_replicas": [0, -1, 9],
    "frontend_replicas": [0, 9],
    "prometheus_url": ["", "prometheus:9090", 'http://p" }', "http://p\n"],
    "service_account": ["", "Robot", "a b"],
    "credentials_secret": ["x/y"],
    "api_keys_secret": ["x/y"],
    "storage_class": ["Fast", "fast "],
    "builder_image": ["image "],
    "image_pull_secret": [("pull", "x y")],
    "tls_secret": ["X"],
    "node_selector": [("pool",), ("pool=a b",), ("=a",), ("pool=a", "pool=b"), ("a/b/c=d",)],
    "toleration": [("",), ("key:Never",), ("key=a b",), ("k=v:NoSchedule:NoExecute",)],
    "frontend_node_selector": [("pool=${x}",)],
    "frontend_toleration": [("-",)],
    "queued_tokens": [0, -5],
    "fill": ["", "copy", "file:///x", "pvc://claim/x", "s3://"],
    "memory_budget": ["", "8 elephants", "-1GB"],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in BAD.items() for value in values])
def test_what_kubernetes_would_refuse_is_a_diagnostic(option: str, value: object) -> None:
    with pytest.raises(DiagnosticError) as caught:
        replace(DeployOptions(), **{option: value}).checked("kubernetes")  # type: ignore[arg-type]
    [mistake] = caught.value.diagnostics
    assert mistake.code == "SIE801"
    assert mistake.hint == f"change `--{option.replace('_', '-')}`"
    if value and isinstance(value, str):
        assert value in mistake.message or option == "source"


@pytest.mark.parametrize(
    ("options", "kind", "option"),
    [
        (DeployOptions(fill="build", source="s3://bucket/x"), "kubernetes", "fill"),
        (DeployOptions(fill="build", source="pvc://claim"), "kubernetes", "source"),
        (DeployOptions(load="on-demand"), "kserve", "load"),
        (DeployOptions(memory_budget="2GB"), "kserve", "load"),
        (DeployOptions(pin=("a",)), "kubernetes", "pin"),
        (DeployOptions(preload=("a",), pin=("a",)), "kubernetes", "preload"),
        (DeployOptions(idle_evict_s=60), "kubernetes", "idle-evict-s"),
        (DeployOptions(load="on-demand", idle_evict_s=float("nan")), "kubernetes", "idle-evict-s"),
        (DeployOptions(grpc=True, engine="embedded"), "kubernetes", "grpc"),
        (DeployOptions(grpc=True, load="on-demand"), "kubernetes", "grpc"),
        (DeployOptions(ingress_host="a.example.org"), "kserve", "ingress-host"),
        (DeployOptions(ingress_host="a_b"), "kubernetes", "ingress-host"),
        (DeployOptions(ingress_host="a.example.org\n"), "kubernetes", "ingress-host"),
        (DeployOptions(gateway="edge"), "kubernetes", "gateway"),
        (DeployOptions(ingress_class="nginx"), "kubernetes", "ingress-class"),
        (DeployOptions(ingress_tls_secret="web"), "kubernetes", "ingress-tls-secret"),
        (DeployOptions(ingress_host="a.example.org", gateway="a/b/c"), "kubernetes", "gateway"),
        (DeployOptions(ingress_host="a.example.org", gateway="a", ingress_class="b"), "kubernetes", "gateway"),
        (DeployOptions(tls_secret="inner"), "kserve", "tls-secret"),
        (DeployOptions(tls_secret="inner", ingress_host="a.example.org", gateway="a"), "kubernetes", "tls-secret"),
    ],
)
def test_what_does_not_go_together_is_a_diagnostic(options: DeployOptions, kind: Kind, option: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        options.checked(kind)
    [mistake] = caught.value.diagnostics
    assert (mistake.code, mistake.hint) == ("SIE801", f"change `--{option}`")


@pytest.mark.parametrize(
    ("entry", "toleration"),
    [
        ("nvidia.com/gpu", {"key": "nvidia.com/gpu", "operator": "Exists"}),
        ("gpu:NoExecute", {"key": "gpu", "operator": "Exists", "effect": "NoExecute"}),
        ("gpu=a", {"key": "gpu", "operator": "Equal", "value": "a"}),
        ("a=:NoSchedule", {"key": "a", "operator": "Equal", "value": "", "effect": "NoSchedule"}),
    ],
)
def test_tolerations_are_read(entry: str, toleration: dict[str, str]) -> None:
    assert tolerations([entry]) == [toleration]


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(DiagnosticError) as caught:
        DeployOptions(name="A", namespace="B", source="c", triton_replicas=0).checked("kubernetes")
    assert len(caught.value.diagnostics) == 4


@pytest.mark.parametrize(
    ("options", "kind", "engine"),
    [
        (DeployOptions(), "kubernetes", "embedded"),
        (DeployOptions(device="cuda"), "kubernetes", "nvidia"),
        (DeployOptions(source="s3://bucket/x"), "kubernetes", "nvidia"),
        (DeployOptions(engine="nvidia"), "kubernetes", "nvidia"),
        (DeployOptions(), "kserve", "nvidia"),
    ],
)
def test_the_engine_follows_the_device_and_the_source(options: DeployOptions, kind: str, engine: str) -> None:
    deployment = options.checked(kind)  # type: ignore[arg-type]
    assert deployment.engine == engine
    assert (deployment.triton_image == DEFAULT_TRITON_IMAGE) == (engine == "nvidia")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (DeployOptions(engine="embedded", device="cuda"), "kubernetes"),
        (DeployOptions(engine="embedded", source="gs://bucket"), "kubernetes"),
        (DeployOptions(engine="embedded"), "kserve"),
    ],
)
def test_the_embedded_server_is_not_put_where_it_cannot_run(options: DeployOptions, kind: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        options.checked(kind)  # type: ignore[arg-type]
    [mistake] = caught.value.diagnostics
    assert mistake.code == "SIE801"
    assert "use `nvidia`" in mistake.message


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("pvc://models", Source("pvc", "models", "")),
        ("pvc://models/repository/", Source("pvc", "models", "repository")),
        ("s3://my.bucket-1/a/b_c.d", Source("s3", "my.bucket-1", "a/b_c.d")),
        ("gs://bucket", Source("gs", "bucket", "")),
    ],
)
def test_sources(uri: str, source: Source) -> None:
    assert parse_source(uri) == source
    assert parse_source(source.uri) == source


@given(st.text(max_size=30))
def test_a_source_is_read_or_refused(path: str) -> None:
    try:
        source = parse_source(f"s3://bucket/{path}")
    except ValueError as error:
        assert "s3://bucket/" in str(error)
    else:
        assert ".." not in source.path.split("/")
        assert not set(source.uri) & set(" \n\t\"'$`\\;{}")


def test_the_default_image_is_a_release_whose_onnx_runtime_is_known() -> None:
    tag = DEFAULT_TRITON_IMAGE.rpartition(":")[2]
    assert onnx_runtime(Release.parse(tag)).max_opset >= 21
