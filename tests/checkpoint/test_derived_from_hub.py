"""A model of the hub that no bundle names: what is fetched to derive one, and that it is fetched once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from compiler.folders import minilm_facts
from fake_hub import FakeHub

FIND = """
from pathlib import Path
from sie_triton.cli.models import wanted_models
from sie_triton.cli.targets import find_targets
from sie_triton.compiler.options import BuildOptions
options = BuildOptions(Path("repository"), announce=print)
[target] = find_targets(wanted_models(["me/small"], []), None, options, allow_hub=True)
print(target.bundle.hf_id, target.bundle.hf_revision, target.derived)
"""


def test_the_hub_gives_files_that_only_tell_and_then_is_not_asked_again(tmp_path: Path) -> None:
    folder = minilm_facts(tmp_path / "published")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    card = b'# A model\n```json\n{"matryoshka_dims": [384, 96]}\n```\n'
    command = [sys.executable, "-c", FIND]
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "home")
        model = hub.add("me/small", {**files, "README.md": card, "onnx/model.onnx": b"not wanted"})
        first = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert not any("onnx" in path for path in hub.seen("me/small"))
    second = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert f"me/small {model.commit} True" in first.stdout
    assert "matryoshka_dims: [96]  # matryoshka_dims of README.md" in first.stdout
    assert second.stdout == first.stdout
