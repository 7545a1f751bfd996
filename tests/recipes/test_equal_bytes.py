"""Two builds of the same inputs are the same bytes: alone or among others, whatever the order of a process's sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prepared import HASH_SEED
from sie_frontend.manifest import read_manifest

from sie_triton.repository.publish import tree_digests

from .built import BuiltFamilies
from .made import made

# transformers makes this family's masks in a loop over a set of strings. The two seeds give that set two orders.
FAMILY, OTHER_SEED = "modernbert", "3"


@pytest.mark.export
def test_a_build_depends_on_neither_sets_nor_company(built_families: BuiltFamilies, tmp_path: Path) -> None:
    assert HASH_SEED == "1"
    checkpoint, alone = made(FAMILY), tmp_path / "repository"
    command = [sys.executable, "-m", "sie_triton.cli", "build", "-m", checkpoint.sie_id, "--device", "cpu"]
    done = subprocess.run(
        [*command, "--bundles", str(checkpoint.bundle_path.parent), "-r", str(alone)],
        env={**os.environ, "PYTHONHASHSEED": OTHER_SEED},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    among = built_families.repository(built_families.group(FAMILY))
    name = checkpoint.sie_id.replace("/", "__")
    assert list(read_manifest(alone).triton_models) == [name]
    assert tree_digests(alone / name) == tree_digests(among / name)
    ours, theirs = read_manifest(alone), read_manifest(among)
    assert ours.models == {checkpoint.sie_id: theirs.models[checkpoint.sie_id]}
    assert ours.built == {name: theirs.built[name]}
