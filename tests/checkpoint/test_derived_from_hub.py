"""A model of the hub that no bundle names: what is fetched to derive one, and that it is fetched once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from compiler.folders import minilm_facts
from fake_hub import FakeHub

# Nobody is told that an answer is awaited, however long a busy machine takes for it.
PATIENT = """
from sie_triton.checkpoint import asking
asking._QUIET_S = 60
"""
ANSWERS = {"HF_HUB_ETAG_TIMEOUT": "60"}
"""In the environment of whoever asks a hub that answers."""

FIND = (
    PATIENT
    + """
import sys
from pathlib import Path
from sie_triton.cli.models import wanted_models
from sie_triton.cli.targets import find_targets
from sie_triton.compiler.options import BuildOptions
options = BuildOptions(Path("repository"), announce=print)
[target] = find_targets(wanted_models([sys.argv[1]], []), None, options, allow_hub=True)
print(target.bundle.hf_id, target.bundle.hf_revision, target.derived)
"""
)


def test_the_hub_gives_files_that_only_tell_and_then_is_not_asked_again(tmp_path: Path) -> None:
    folder = minilm_facts(tmp_path / "published")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    card = b'# A model\n```json\n{"matryoshka_dims": [384, 96]}\n```\n'
    command = [sys.executable, "-c", FIND, "me/small"]
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "home") | ANSWERS
        model = hub.add("me/small", {**files, "README.md": card, "onnx/model.onnx": b"not wanted"})
        first = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert not any("onnx" in path for path in hub.seen("me/small"))
    second = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert f"me/small {model.commit} True" in first.stdout
    assert "matryoshka_dims: [96]  # matryoshka_dims of README.md" in first.stdout
    assert second.stdout == first.stdout


def test_what_lies_there_in_open_clips_layout_is_derived_as_from_a_folder(tmp_path: Path) -> None:
    """Alone, and beside a wrapper with code of its own, whose weights are not fetched."""
    pytest.importorskip("torch")
    from image_text.open_clip_checkpoints import write_open_clip

    write_open_clip(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    wrapper = {"config.json": b'{"auto_map": {"AutoModel": "a.B"}}', "model.safetensors": b"x", "a.py": b""}
    told = {}
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "home") | ANSWERS
        for name, more in (("alone", {}), ("wrapped", wrapper)):
            hub.add(f"me/{name}", {**files, **more, "open_clip_pytorch_model.bin": b"pickled"})
            command = [sys.executable, "-c", FIND, f"me/{name}"]
            told[name] = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            assert f"open_clip_model_id: hf-hub:me/{name}" in told[name]
            assert "backend: open_clip" in told[name]
            fetched = "".join(hub.seen(f"me/{name}"))
            assert hashlib.sha256(files["open_clip_model.safetensors"]).hexdigest() in fetched
            assert hashlib.sha256(b"x").hexdigest() not in fetched
            assert not any(name in fetched for name in (hashlib.sha256(b"pickled").hexdigest(), "a.py"))
    for name, first in told.items():  # the hub is gone
        command = [sys.executable, "-c", FIND, f"me/{name}"]
        again = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        assert again == first


ASK = """
import sys
from pathlib import Path
from sie_triton.cli.build import run_build
from sie_triton.cli.models import wanted_models
from sie_triton.compiler.options import BuildOptions
from sie_triton.diagnostics import DiagnosticError
try:
    run_build(wanted_models(sys.argv[1:], []), None, BuildOptions(Path("repository"), announce=print))
except DiagnosticError as error:
    print(error)
"""


def test_a_hub_that_is_silent_is_asked_once_for_all_models_and_it_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK, "me/first", "me/second", "me/third"]
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "home")
        hub.add("me/first", {}, hangs=("/api/",))
        hub.add("me/second", {}, hangs=("/api/",))
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
        assert [request.path for request in hub.requests] == ["/api/models/me/first"]
        assert f"asking the hub at {hub.url} for `me/first`, for up to 3 s" in done.stdout
    assert done.stdout.count("SIE111") == 3
    assert done.stdout.count("HF_HUB_OFFLINE=1") == 3
    assert "asking the hub" not in done.stdout.partition("me/first`, for")[2]


def test_a_hub_that_knows_no_such_model_is_asked_once_for_each(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PATIENT + ASK, "me/first", "me/second"]
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "home") | ANSWERS
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
        assert [request.path for request in hub.requests] == ["/api/models/me/first", "/api/models/me/second"]
    assert done.stdout.count("check the spelling") == 2
    assert "asking the hub" not in done.stdout
