"""Checkpoints in open_clip's layout, laid out anew and written, against transformers' SigLIP of the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sie_frontend.contract.errors import WireError
from sie_frontend.settings import SettingsError
from sie_frontend.text.entry import Prompting, TextInput, Tokenization
from sie_frontend.text.prompting import prepare_texts
from sie_frontend.text.reader import TextReader
from transformers import SiglipImageProcessorPil, SiglipModel

from sie_triton.bundle import parse_bundle
from sie_triton.checkpoint import Checkpoint, resolve_checkpoint
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import read_facts
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import ImageTextRecipe, Recipe
from sie_triton.planning.plan import TritonPlan
from sie_triton.planning.planner import make_plans
from sie_triton.planning.recipe import Refusal
from sie_triton.verify.public_model import open_reader

from .builds import build
from .open_clip_checkpoints import LENGTH, MEAN, SIZE, STD, WIDTH, document, write_open_clip
from .test_image_text_graphs import bundle_text, run, unit

RECORDED = json.loads((Path(__file__).parent / "open_clip_texts.json").read_text(encoding="utf-8"))
RANDOM = np.random.default_rng(8)
BACKEND = """adapter_options:
      loadtime:
        backend: open_clip
        open_clip_model_id: hf-hub:acme/clip
        dense_dim: 48"""


def open_clip_bundle(folder: Path) -> str:
    text = bundle_text(folder, WIDTH, "SiglipAdapter").replace("adapter_options:", BACKEND)
    return text.replace("weights_path:", "hf_id: acme/clip\nweights_path:")


def judged(text: str) -> tuple[Any, Any, Recipe | Refusal]:
    bundle, mistakes = parse_bundle(text, Path("open_clip.yaml"))
    assert bundle is not None, mistakes
    profile = bundle.resolve("default")
    return bundle, profile, verdict(profile, bundle)


def checkpoint(folder: Path) -> Checkpoint:
    _, _, recipe = judged(open_clip_bundle(folder))
    assert isinstance(recipe, ImageTextRecipe)
    return resolve_checkpoint(
        "acme/clip", None, weights=folder, bundle_weights_path=None, extra_files=recipe.extra_files
    )


def plans(folder: Path) -> dict[str, TritonPlan]:
    bundle, profile, recipe = judged(open_clip_bundle(folder))
    assert isinstance(recipe, ImageTextRecipe)
    made = make_plans(bundle, [(profile, recipe)], read_facts(checkpoint(folder).folder))
    return {plan.modality: plan for plan in made}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SiglipModel]:
    folder = tmp_path_factory.mktemp("open_clip")
    return folder, write_open_clip(folder)


def copied(tiny: tuple[Path, SiglipModel], folder: Path) -> Path:
    shutil.copytree(tiny[0], folder, dirs_exist_ok=True)
    return folder


def test_pictures_alone_and_together(tiny: tuple[Path, SiglipModel]) -> None:
    folder, model = tiny
    plan = plans(folder)["image"]
    levels = RANDOM.integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    processor = SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD)
    values = processor(list(levels), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    with torch.inference_mode():
        wanted = unit(model.get_image_features(pixel_values=values))
    laid_out = checkpoint(folder).folder
    found = run(laid_out, plan, {"pixels": levels})
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)
    np.testing.assert_allclose(run(laid_out, plan, {"pixels": levels[2:3]})[0], wanted[2], atol=1e-5, rtol=0)


def test_texts_alone_and_together(tiny: tuple[Path, SiglipModel]) -> None:
    folder, model = tiny
    plan = plans(folder)["text"]
    assert plan.max_length == LENGTH
    assert plan.spelling is not None
    assert plan.spelling.pads == "right"
    ids = RANDOM.integers(3, model.config.text_config.vocab_size, (4, LENGTH))
    with torch.inference_mode():
        wanted = unit(model.get_text_features(input_ids=torch.from_numpy(ids)))
    laid_out = checkpoint(folder).folder
    np.testing.assert_allclose(run(laid_out, plan, {"input_ids": ids}), wanted, atol=1e-5, rtol=0)
    np.testing.assert_allclose(run(laid_out, plan, {"input_ids": ids[:1]})[0], wanted[0], atol=1e-5, rtol=0)


def test_transformers_reads_what_is_laid_out(tiny: tuple[Path, SiglipModel]) -> None:
    """Every tensor, and every setting that it has a default for."""
    folder, model = tiny
    found = SiglipModel.from_pretrained(checkpoint(folder).folder)
    theirs = found.state_dict()
    assert theirs.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(theirs[name], tensor), name
    for part in ("text_config", "vision_config"):
        ours = getattr(model.config, part)
        for key in ("hidden_act", "layer_norm_eps", "num_attention_heads", "num_hidden_layers", "intermediate_size"):
            assert getattr(getattr(found.config, part), key) == getattr(ours, key), key


def test_its_own_files_lie_beside_and_transformers_weights_are_left_alone(
    tiny: tuple[Path, SiglipModel], tmp_path: Path
) -> None:
    """The published repositories have weights for a wrapper with code of its own as well: none of it is used."""
    folder = copied(tiny, tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip", "auto_map": {"AutoModel": "a.B"}}))
    (folder / "model.safetensors").write_bytes(b"not read")
    found = checkpoint(folder)
    assert "model.safetensors" not in found.files
    assert not found.needs_remote_code
    assert (found.folder / "published" / "open_clip_model.safetensors").resolve() == (
        folder / "open_clip_model.safetensors"
    )
    assert read_facts(found.folder).model_type == "siglip"


@pytest.mark.parametrize(("text", "cleaned"), RECORDED, ids=lambda text: ascii(text)[:24])
def test_texts_are_cleaned_as_open_clip_recorded(text: str, cleaned: str) -> None:
    """Recorded from open_clip 3.3.0 with ftfy 6.3.1."""
    pytest.importorskip("ftfy", reason="of the extra `open-clip`")
    assert prepare_texts(
        [text], Prompting("plain", clean="open_clip"), options={}, instruction=None, is_query=False
    ) == [cleaned]


def test_without_ftfy_no_reader_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sie_frontend.text.cleaning.find_spec", lambda name: None)
    tokenization = Tokenization("tokenizer.json", 16, 1, ("input_ids",), (16,))
    entry = TextInput(tokenization, Prompting("plain", clean="open_clip"), "text")
    with pytest.raises(SettingsError, match=r"needs ftfy; `pip install"):
        TextReader(entry, tmp_path, profiles={})
    with pytest.raises(DiagnosticError, match="needs ftfy") as caught:  # by `build` and `verify`
        open_reader("text", entry, tmp_path, {})
    assert caught.value.diagnostics[0].code == "SIE401"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a cat", "a" * 65_537], "Field 'items[1]' must hold at most 65536 characters"),
        (["a" * 60_000] * 18, "at most 1048576 characters for a model that cleans its texts"),
        (["\u00e9\n" * 30_000] * 2, "a line counted as 32 more; split the request"),
    ],
    ids=["a long text", "many long texts", "many lines"],
)
def test_texts_that_take_long_to_clean_are_refused(texts: list[str], said: str) -> None:
    """ftfy takes 43 seconds for two megabytes of short lines; a caption is never so long."""
    with pytest.raises(WireError) as caught:
        prepare_texts(texts, Prompting("plain", clean="open_clip"), options={}, instruction=None, is_query=True)
    assert caught.value.status == 400
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"quick_gelu": True}}, "`quick_gelu` is True"),
        ({"model": {"custom_text": None}}, "`custom_text` is not set"),
        ({"model": {"multimodal_cfg": {}}}, "`multimodal_cfg`"),
        ({"vision": {"timm_model_name": "vit_so400m_patch16_siglip_256"}}, "`vit_so400m_patch16_siglip_256`"),
        ({"vision": {"timm_model_name": None}}, "`None`"),
        ({"vision": {"timm_pool": "avg"}}, "`vision_cfg.timm_pool` is 'avg'"),
        ({"vision": {"timm_proj": "linear"}}, "`vision_cfg.timm_proj`"),
        ({"vision": {"image_size": 32}}, "16 patches of 8, the weights 9"),
        ({"vision": {"image_size": "24"}}, "`vision_cfg.image_size`"),
        ({"vision": {"head_width": 64}}, "`vision_cfg.head_width`"),
        ({"text": {"no_causal_mask": False}}, "`text_cfg.no_causal_mask` is False"),
        ({"text": {"pool_type": "argmax"}}, "`text_cfg.pool_type`"),
        ({"text": {"proj_bias": None}}, "`text_cfg.proj_bias` is not set"),
        ({"text": {"tokenizer_kwargs": {"clean": "lower"}}}, "`text_cfg.tokenizer_kwargs`"),
        ({"text": {"tokenizer_kwargs": None}}, "`text_cfg.tokenizer_kwargs` is not set"),
        ({"text": {"hf_tokenizer_name": None}}, "CLIP's tokenizer"),
        ({"text": {"norm_kwargs": {"epsilon": 1}}}, "`text_cfg.norm_kwargs.epsilon`"),
        ({"pixels": {"resize_mode": "shortest"}}, "`preprocess_cfg.resize_mode` is 'shortest'"),
        ({"pixels": {"resize_mode": None}}, "`preprocess_cfg.resize_mode` is not set"),
        ({"pixels": {"interpolation": "nearest"}}, "`preprocess_cfg.interpolation`"),
    ],
    ids=str,
)
def test_what_is_not_compiled_is_refused_by_name(
    change: dict[str, Any], said: str, tiny: tuple[Path, SiglipModel], tmp_path: Path
) -> None:
    folder = copied(tiny, tmp_path)
    (folder / "open_clip_config.json").write_text(json.dumps(document(**change)), encoding="utf-8")
    with pytest.raises(DiagnosticError) as caught:
        read_facts(checkpoint(folder).folder)
    (problem,) = caught.value.diagnostics
    assert problem.code == "SIE345"
    assert said in problem.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.update({"visual.trunk.cls_token": torch.zeros(1, 1, WIDTH)}), "cls_token"),
        (lambda state: state.pop("text.text_projection.weight"), "text_projection"),
        (lambda state: state.update({"text.transformer.resblocks.0.ls_1.gamma": torch.zeros(4)}), "ls_1"),
    ],
    ids=["a class token", "no projection", "scaled layers"],
)
def test_other_weights_are_refused_by_name(
    change: Callable[[dict[str, torch.Tensor]], object], said: str, tiny: tuple[Path, SiglipModel], tmp_path: Path
) -> None:
    folder = copied(tiny, tmp_path)
    state = load_file(folder / "open_clip_model.safetensors")
    change(state)
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(DiagnosticError, match=said):
        read_facts(checkpoint(folder).folder)


@pytest.mark.parametrize(
    ("gone", "code"),
    [("open_clip_config.json", "SIE309"), ("open_clip_model.safetensors", "SIE309"), ("tokenizer.json", "SIE306")],
)
def test_what_is_missing_is_told_by_name(gone: str, code: str, tiny: tuple[Path, SiglipModel], tmp_path: Path) -> None:
    folder = copied(tiny, tmp_path)
    (folder / gone).unlink()
    (folder / "spiece.model").unlink()
    with pytest.raises(DiagnosticError) as caught:
        checkpoint(folder)
    assert code in {problem.code for problem in caught.value.diagnostics}


def test_pickled_weights_are_refused(tiny: tuple[Path, SiglipModel], tmp_path: Path) -> None:
    folder = copied(tiny, tmp_path)
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(DiagnosticError) as caught:
        checkpoint(folder)
    assert [problem.code for problem in caught.value.diagnostics] == ["SIE305"]


def test_weights_of_another_repository_are_refused(tmp_path: Path) -> None:
    """SIE loads `open_clip_model_id`, whatever `hf_id` says."""
    _, _, found = judged(open_clip_bundle(tmp_path).replace("hf-hub:acme/clip", "hf-hub:acme/other"))
    assert isinstance(found, Refusal)
    assert "`acme/other`" in found.reason


def test_without_open_clip_the_build_says_how_to_get_it(
    tiny: tuple[Path, SiglipModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sie_triton.compiler.packages.find_spec", lambda name: None if name == "open_clip" else object()
    )
    done = build(tmp_path, bundle=open_clip_bundle(tiny[0]))
    assert done.code != 0
    assert "SIE401" in done.stderr
    assert "pip install open_clip_torch" in done.stderr
    assert not (tmp_path / "repository").exists()
