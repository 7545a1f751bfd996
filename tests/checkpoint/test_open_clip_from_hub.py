"""A checkpoint in open_clip's layout on the hub: what is fetched of it, and that it is fetched once."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_hub import FakeHub
from resolve_elsewhere import Elsewhere

EXTRA = ["open_clip_config.json", "open_clip_model.safetensors"]


def test_its_own_files_are_fetched_and_no_weights_of_a_wrapper(tmp_path: Path) -> None:
    """The published repositories have both, gigabytes of the one that is not read."""
    pytest.importorskip("torch")
    from image_text.open_clip_checkpoints import write_open_clip

    write_open_clip(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    wrapper = {"config.json": b'{"auto_map": {"AutoModel": "a.B"}}', "model.safetensors": b"x", "a.py": b""}
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "home")
        model = hub.add("me/open-clip", {**files, **wrapper, "onnx/model.onnx": b"y"})
        with Elsewhere(environment) as elsewhere:
            first = elsewhere.resolve("me/open-clip", extra_files=EXTRA)
        fetched = {name for name in model.files if any(name in path for path in hub.seen("me/open-clip"))}
        hub.add("me/pickled", {**{name: files[name] for name in files if name != EXTRA[1]}, "open_clip_x.bin": b"z"})
        with Elsewhere(environment) as elsewhere:
            refused = elsewhere.resolve("me/pickled", extra_files=EXTRA)
    with Elsewhere(environment) as elsewhere:
        second = elsewhere.resolve("me/open-clip", extra_files=EXTRA)
    kept = ["config.json", *EXTRA, "spiece.model", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(first.found["files"]) == sorted(kept)
    assert first.found["identity"] == f"hf:me/open-clip@{model.commit}"
    assert not {"a.py", "onnx/model.onnx"} & fetched
    assert (second.found["source"], second.found["files"]) == ("cache", first.found["files"])
    assert refused.codes == ["SIE305"]
