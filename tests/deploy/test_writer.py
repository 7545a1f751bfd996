"""The files: the same bytes each time, the same meaning to every reader of YAML, and nobody else's overwritten."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sie_triton.deploy import DeployOptions, write_manifests
from sie_triton.deploy.options import Kind
from sie_triton.deploy.writer import to_yaml
from sie_triton.diagnostics import DiagnosticError

GOLDEN = Path(__file__).parent / "golden"
SCENES: dict[str, tuple[Kind, DeployOptions]] = {
    "kubernetes-cpu": ("kubernetes", DeployOptions()),
    "kubernetes-cuda-s3-keda": (
        "kubernetes",
        DeployOptions(device="cuda", source="s3://bucket/prefix", autoscaler="keda", credentials_secret="s3-keys"),
    ),
    "kubernetes-filled-entry": (
        "kubernetes",
        DeployOptions(
            fill="build",
            ingress_host="embed.example.org",
            ingress_class="nginx",
            tls_secret="inner",
            api_keys_secret="sie-keys",
            image_pull_secret=("pull",),
            node_selector=("pool=search",),
            toleration=("dedicated=search:NoSchedule",),
        ),
    ),
    "kubernetes-on-demand-cuda": (
        "kubernetes",
        DeployOptions(device="cuda", memory_budget="16GB", pin=("acme/first",), autoscaler="none"),
    ),
    "kserve-cuda": ("kserve", DeployOptions(device="cuda", source="gs://bucket/repository", service_account="reader")),
}
HOSTILE = [
    "",
    " ",
    "y",
    "NO",
    "on",
    "null",
    "~",
    "1e3",
    "0o17",
    "0x1F",
    "1_000",
    "12:30",
    "-",
    "- a",
    "a: b",
    "#x",
    "'",
]
HOSTILE += [
    '"',
    "\\",
    "a\nb",
    "\t",
    "{}",
    "[",
    "*a",
    "&a",
    "!x",
    "%",
    "@",
    "`",
    "é",
    "日本",
    "\u2028",
    "\x7f",
    ".inf",
    "=",
    "<<",
]


@pytest.mark.parametrize("scene", SCENES)
def test_golden(scene: str, repository: Path, tmp_path: Path) -> None:
    kind, options = SCENES[scene]
    out = GOLDEN / scene if os.environ.get("SIE_TRITON_UPDATE_GOLDEN") else tmp_path / "out"
    written = {path.name: _without_hash(path) for path in write_manifests(kind, repository, out, options)}
    assert written == {path.name: _without_hash(path) for path in (GOLDEN / scene).iterdir()}


def _without_hash(path: Path) -> str:
    """The text but for the manifest's hash, which follows the manifest's schema and not ours."""
    return re.sub(r'(manifest-sha256: )"?[0-9a-f]{64}"?', r"\1HASH", path.read_text())


def same_for_all_readers(text: str) -> None:
    ruamel = pytest.importorskip("ruamel.yaml", reason="comes with the development dependency `check-jsonschema`")
    document = {text: text, "list": [text, {"key": text}]}
    written = to_yaml([document])
    assert yaml.safe_load(written) == document  # YAML 1.1
    assert ruamel.YAML(typ="safe", pure=True).load(io.StringIO(written)) == document  # YAML 1.2


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_the_same_for_all_readers(text: str) -> None:
    same_for_all_readers(text)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20))
def test_any_text_is_the_same_for_all_readers(text: str) -> None:
    same_for_all_readers(text)


def test_what_yaml_1_2_takes_for_a_number_is_quoted() -> None:
    assert to_yaml([{"a": "1e3", "b": "0o17", "c": "n", "d": "word"}]) == 'a: "1e3"\nb: "0o17"\nc: "n"\nd: word\n'


def test_stale_files_go_and_others_stay(repository: Path, tmp_path: Path) -> None:
    write_manifests("kubernetes", repository, tmp_path / "out", DeployOptions())
    (tmp_path / "out" / "ingress.yaml").write_text("kind: Ingress\n")
    written = write_manifests("kserve", repository, tmp_path / "out", DeployOptions(source="gs://b", autoscaler="none"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in written} | {"ingress.yaml"}
    assert not (tmp_path / "out" / "triton.yaml").exists()


def test_somebody_elses_file_is_left_alone(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "frontend.yaml").write_text("kind: Deployment\n")
    with pytest.raises(DiagnosticError) as caught:
        write_manifests("kubernetes", repository, tmp_path, DeployOptions())
    [mistake] = caught.value.diagnostics
    assert mistake.code == "SIE802"
    assert mistake.where is not None
    assert mistake.where.path == tmp_path / "frontend.yaml"
    assert {path.name for path in tmp_path.iterdir()} == {"frontend.yaml", "repository"}


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        (None, "SIE603"),
        ("{}", "SIE603"),
        ('{"schema_version": 4, "models": {}, "triton_models": {}, "built": {}}', "SIE604"),
    ],
)
def test_without_a_repository_nothing_is_written(tmp_path: Path, manifest: str | None, code: str) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    if manifest is not None:
        (repository / "manifest.json").write_text(manifest)
    with pytest.raises(DiagnosticError) as caught:
        write_manifests("kubernetes", repository, tmp_path / "out", DeployOptions())
    assert [mistake.code for mistake in caught.value.diagnostics] == [code]
    assert not (tmp_path / "out").exists()
