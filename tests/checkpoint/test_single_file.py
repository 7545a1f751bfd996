"""A file of some other kind where a model is asked for: it is called what it is, and what helps is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from sie_triton.checkpoint import resolve_checkpoint
from sie_triton.cli.models import wanted_models
from sie_triton.cli.targets import find_targets
from sie_triton.compiler.options import BuildOptions
from sie_triton.diagnostics import Diagnostic, DiagnosticError

FILES = {
    "model.Q8_0.gguf": ("SIE327", "a file of GGUF", "the repository that it was converted from"),
    "model.onnx": ("SIE327", "a file of ONNX", "the repository that it was converted from"),
    "pytorch_model.bin": ("SIE305", "unpickling executes", "`save_pretrained`"),
    "model.pt": ("SIE305", "unpickling executes", "`save_pretrained`"),
    "model.safetensors": ("SIE302", "do not say of which model", "put `config.json`"),
    "tf_model.h5": ("SIE302", "weights of TensorFlow", "`from_tf`"),
    "model.tar.gz": ("SIE302", "an archive", "unpack it"),
    "bundle.yaml": ("SIE302", "a bundle", "--bundles"),
    "models.txt": ("SIE302", "a list", "-m @"),
    "README": ("SIE302", "no checkpoint", "the folder that holds `config.json`"),
}


def refused(*arguments: str, weights: tuple[str, ...] = ()) -> Diagnostic:
    wanted = wanted_models(arguments, weights)
    options = BuildOptions(
        Path("repository"), wanted.weights, default_weights=wanted.default_weights, announce=lambda _: None
    )
    with pytest.raises(DiagnosticError) as caught:
        find_targets(wanted, None, options, allow_hub=False)
    [diagnostic] = caught.value.diagnostics
    return diagnostic


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["./{}", "{}", "{} as weights"])
def test_each_is_named_however_it_is_given(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"")
    code, said, cure = FILES[name]
    found = refused("my/model", weights=(name,)) if "weights" in way else refused(way.format(name))
    assert found.code == code
    assert said in found.message and cure in str(found.hint)
    assert name in str(found.where)


def test_one_of_the_files_of_a_checkpoint_names_its_folder(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(DiagnosticError) as caught:
            resolve_checkpoint(None, None, weights=tmp_path / name, bundle_weights_path=None)
        assert f"name the folder that it lies in, `{tmp_path}`" in str(caught.value)


@pytest.mark.parametrize(
    "page",
    [
        "https://huggingface.co/me/model",
        "https://huggingface.co/me/model/",
        "https://hub.example/me/model/tree/main",
        "https://huggingface.co/me/model/resolve/main/config.json",
        "hf.co/me/model",
    ],
)
def test_the_address_of_a_page_is_no_id(page: str) -> None:
    found = refused(page)
    assert (found.code, found.hint) == ("SIE111", "write `-m me/model`")
