"""What merging an adapter holds in memory: one tensor's product, however many there are."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
from checkpoint_files import safetensors

from sie_triton.checkpoint import load_tensors, resolve_checkpoint

LAYERS, WIDTH, RANK = 24, 256, 2
NAME = "encoder.layer.{}.attention.self.query.weight"


def test_products_are_made_one_at_a_time(tmp_path: Path) -> None:
    """All together would be as much as the model: here 6 MB, of which a quarter may be held at once."""
    random = np.random.default_rng(3)
    base = {NAME.format(number): random.standard_normal((WIDTH, WIDTH)).astype("f2") for number in range(LAYERS)}
    halves = {
        f"base_model.model.{name.removesuffix('.weight')}.lora_{part}.weight": random.standard_normal(shape).astype(
            "f4"
        )
        for name in base
        for part, shape in (("A", (RANK, WIDTH)), ("B", (WIDTH, RANK)))
    }
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(safetensors(base))
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "target_modules": ["query"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(halves))
    found = resolve_checkpoint("acme/model", None, weights=tmp_path, bundle_weights_path=None, allow_hub=False)
    tracemalloc.start()
    folder = found.folder
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = LAYERS * WIDTH * WIDTH * 4
    assert peak < whole / 4
    merged = load_tensors(folder / "model.safetensors")
    for name, tensor in base.items():
        root = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        right = tensor.astype("f8") + 3 * halves[f"{root}B.weight"].astype("f8") @ halves[f"{root}A.weight"]
        np.testing.assert_allclose(merged[name], right, rtol=0, atol=1e-4)
