"""A bundle whose pinned repository is a LoRA adapter: its checkpoint is called by both names, and is built once."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from compiler import tiny
from e2e.processes import COMMAND
from fake_hub import FakeHub
from safetensors.numpy import save
from sie_frontend.manifest import read_manifest

pytestmark = pytest.mark.export

RANK = 3


def build(root: Path, environment: Mapping[str, str]) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    asked = ("build", "--bundles", root / "bundles", "-m", "acme/tiny", "-r", root / "repository", "--device", "cpu")
    done = subprocess.run(
        [*COMMAND, *map(str, asked)], capture_output=True, text=True, check=False, env=kept | dict(environment)
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_is_built_of_a_pinned_adapter_is_found_again(tmp_path: Path) -> None:
    """The hub is gone by then: nothing is asked of it."""
    tiny.write_checkpoint(tmp_path / "base")
    base = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir() if path.is_file()}
    random = np.random.default_rng(3)
    name = "base_model.model.encoder.layer.0.attention.self.query"
    halves = {f"{name}.lora_A.weight": (RANK, 32), f"{name}.lora_B.weight": (32, RANK)}
    settings = {
        "base_model_name_or_path": "me/base",
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 6,
        "target_modules": ["query"],
        "bias": "none",
    }
    adapter = {
        "adapter_config.json": json.dumps(settings).encode(),
        "adapter_model.safetensors": save({key: random.standard_normal(s).astype("f4") for key, s in halves.items()}),
    }
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "home")
        hub.add("me/base", base)
        commit = hub.add("me/adapter", adapter).commit
        text = tiny.BUNDLE.replace("hf_id: acme/tiny\n", f"hf_id: me/adapter\nhf_revision: {commit}\n")
        tiny.write_bundle(tmp_path / "bundles", text)
        assert "built acme/tiny" in build(tmp_path, environment)
        told = read_manifest(tmp_path / "repository").built["acme__tiny"].checkpoint
        assert "me/adapter" in told and "me/base" in told
    assert "unchanged acme/tiny" in build(tmp_path, environment)
