"""Small random checkpoints that both sides load, each with its bundle and with the adapter that SIE has for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from image_text.checkpoints import write_clip, write_siglip
from image_text.test_image_text_graphs import bundle_text as pair_text
from page_models.checkpoints import write_colpali
from page_models.idefics3 import write_colsmol
from page_models.test_colpali_graphs import bundle_text as page_text
from safetensors.torch import load_file
from sighted.checkpoints import MODEL, bundle_text, pages_text, write_adapter, write_colqwen, write_qwen3_vl

# SIE's classes of ColSmol and ColQwen2.5 have this width in their code.
DIM = 128
SMOL_TARGETS = r".*text_model.*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*$|.*(linear).*$"


@dataclass(frozen=True)
class Adapter:
    """One adapter of SIE: `write` makes the checkpoint in a folder and returns the bundle's text for it.

    SIE loads the folder's `theirs`. `base` is the model that an adapter's weights are added to, by the id in its
    settings. `wire` is the output type as SIE spells it.
    """

    module: str
    name: str
    write: Callable[[Path, str], str]
    wire: str = "multivector"
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = None

    @property
    def path(self) -> str:
        """As the driver takes it."""
        return f"sie_server.adapters.{self.module}:{self.name}"


def _clip(folder: Path, sie_id: str) -> str:
    write_clip(folder / "theirs")
    return pair_text(folder / "theirs", 20).replace("acme/clip", sie_id)


def _siglip(folder: Path, sie_id: str) -> str:
    write_siglip(folder / "theirs")
    return pair_text(folder / "theirs", 24, "SiglipAdapter").replace("acme/clip", sie_id)


def _colpali(folder: Path, sie_id: str) -> str:
    write_colpali(folder / "theirs", older=True)
    spell_as_published(folder / "theirs")
    return page_text(folder / "theirs", sie_id=sie_id)


def _colsmol(folder: Path, sie_id: str) -> str:
    base, adapter, theirs = folder / "base", folder / "adapter", folder / "theirs"
    write_colsmol(base, width=DIM)
    spell_as_published(base)
    adapter.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        shutil.copy(base / name, adapter / name)
    adapted = {
        name: tensor
        for name, tensor in load_file(base / "model.safetensors").items()
        if (name.endswith("_proj.weight") and ".text_model." in name) or name == "linear.weight"
    }
    write_adapter(adapter, adapted, "acme/colsmol-base", SMOL_TARGETS, torch.Generator().manual_seed(3))
    shutil.copytree(adapter, theirs)
    _point(theirs, base)
    # The driver computes on a CPU.
    text = page_text(adapter, DIM, "ColSmolAdapter", sie_id)
    return text.replace("      loadtime:", "      runtime: {patch_positions: shifted}\n      loadtime:", 1)


def _colqwen(folder: Path, sie_id: str) -> str:
    write_colqwen(folder, dim=DIM)
    spell_as_published(folder / "base")
    shutil.copytree(folder / "adapter", folder / "theirs")
    _point(folder / "theirs", folder / "base")
    # From the name of the class SIE's transformers finds that of videos, without which nothing loads.
    edit_json(folder / "theirs" / "preprocessor_config.json", image_processor_type="Qwen2VLImageProcessor")
    return pages_text(folder / "adapter", dim=DIM).replace("acme/pages\n", f"{sie_id}\n")


def _seer(folder: Path, sie_id: str, adapter: str) -> str:
    write_qwen3_vl(folder / "theirs")
    spell_as_published(folder / "theirs")
    told = json.loads((folder / "theirs" / "config.json").read_text(encoding="utf-8"))
    # Published ones say it in both places, and SIE's transformers reads the inner one.
    edit_json(folder / "theirs" / "config.json", text_config={**told["text_config"], "tie_word_embeddings": True})
    return bundle_text(folder / "theirs", adapter=adapter).replace(MODEL, sie_id)


def _point(adapter: Path, base: Path) -> None:
    edit_json(adapter / "adapter_config.json", base_model_name_or_path=str(base))


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a document on the disk."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def spell_as_published(folder: Path) -> None:
    """`config.json` with rotary settings as transformers spelled them before release 5, which SIE runs."""
    path = folder / "config.json"
    path.write_text(json.dumps(_older(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


def _older(told: Any) -> Any:
    if not isinstance(told, dict):
        return told
    made = {key: _older(value) for key, value in told.items() if key != "rope_parameters"}
    if isinstance(rope := told.get("rope_parameters"), dict):
        made["rope_theta"] = rope["rope_theta"]
        if rest := {key: value for key, value in rope.items() if key != "rope_theta"}:
            sections = "mrope_section" in rest
            made["rope_scaling"] = {**rest, "rope_type": "default"} if sections else None
    return made


ADAPTERS: Mapping[str, Adapter] = {
    "clip": Adapter("clip", "CLIPAdapter", _clip, "dense"),
    "siglip": Adapter("siglip.adapter", "SiglipAdapter", _siglip, "dense"),
    "colpali": Adapter("colpali", "ColPaliAdapter", _colpali),
    "colsmol": Adapter("colsmol", "ColSmolAdapter", _colsmol, base="acme/colsmol-base"),
    "colqwen": Adapter("colqwen2", "ColQwen2Adapter", _colqwen, base="acme/pages-base"),
    "seer": Adapter(
        "qwen3_vl_embedding",
        "Qwen3VLEmbeddingAdapter",
        lambda folder, sie_id: _seer(folder, sie_id, "Embedding"),
        "dense",
        {"max_seq_length": 700},
    ),
    "judge": Adapter(
        "qwen3_vl_reranker.adapter",
        "Qwen3VLRerankerAdapter",
        lambda folder, sie_id: _seer(folder, sie_id, "Reranker"),
        "score",
        {"max_seq_length": 700},
    ),
}
