"""What of the documentation cannot be run here, and what belongs to other programs: all of it, with the reason."""

from __future__ import annotations

from collections.abc import Mapping

_WHEELS = "it fetches gigabytes; tests/official/test_installed_wheels.py installs the same wheels"

NOT_HERE: Mapping[str, str] = {
    "docker": "there is no container engine; tests/deploy reads the same compose files and runs the same images' steps",
    "pip": _WHEELS,
    "uv": _WHEELS,
    "uvx": _WHEELS,
    "helm": "there is no cluster; tests/deploy reads the values that it would be given",
    "kubectl": "there is no cluster; tests/deploy checks the manifests and what the steps are about",
    "python -m benchmarks.run": "it measures for a quarter of an hour, after it has installed the peers",
    "python -m benchmarks.paired": "it measures for minutes what the run before has built",
    "python -m benchmarks.gpu": "it measures for minutes; tests/e2e/test_gpu_program.py runs a part of it",
    "python -m benchmarks.gpu_pack": "it compresses weights for minutes",
    "python -m sie_triton.embedded.fetching": "it would fetch a wheel into this environment; "
    "tests/embedded/test_fetching.py runs what it calls",
    "sie-triton tune": "it measures the machine for minutes; tests of its own run it",
}
"""Beginnings of commands that are not run. They must still be commands that a shell can read."""

ELSEWHERE: Mapping[str, str] = {
    "docs/cpu-precisions.md": "its builds measure for minutes; tests/compiler/test_compiler_int8.py and "
    "tests/embedded/test_openvino.py build and serve the same on small graphs",
    "docs/images.md": "tests/image_text/test_image_text_e2e.py follows it, on a checkpoint of random weights",
    "docs/pages.md": "tests/page_models/test_pages_e2e.py follows it, on a checkpoint of random weights",
    "docs/integrations.md": "tests/docs/test_integrations.py follows it, with each Python that it is about",
}
"""Pages that tests of their own follow."""

PENDING: Mapping[str, str] = {}
"""What the pages describe before it has landed: commands, options, variables, codes, metrics. A command that uses one
which is not there yet is skipped; once it is there, it is run as any other, whether or not it is listed here."""

FOREIGN_OPTIONS: Mapping[str, str] = {
    "--build-arg": "docker",
    "--cert": "kubectl",
    "--dry-run": "kubectl",
    "--for": "kubectl",
    "--install": "helm",
    "--key": "kubectl",
    "--raw": "kubectl",
    "--set": "helm",
    "--timeout": "kubectl",
    "--extra-index-url": "pip",
    "--force-reinstall": "pip",
    "--from": "uvx",
    "--from-file": "kubectl",
    "--python": "uv",
    "--torch-backend": "uv",
    "--with": "uv",
    "--target": "docker",
    "--trace-config": "tritonserver",
    "--update-golden": "pytest, tests/conftest.py",
    "--wait": "docker",
    "--check": "python -m sie_triton.pages",
    "--all": "python -m benchmarks.run",
    "--peer": "python -m benchmarks.run",
    "--sdk": "python -m benchmarks.lone",
    "--side": "python -m benchmarks.paired",
    "--no-deps": "pip",
    "--linearity": "python -m benchmarks.run",
    "--requests": "python -m benchmarks.faults",
    "--rounds": "python -m benchmarks.run",
    "--pack": "python -m benchmarks.gpu",
    "--minutes": "python -m benchmarks.gpu",
    "--size": "python -m benchmarks.gpu",
    "--keep": "python -m checkpoint_fuzz",
    "--onnx-every": "python -m checkpoint_fuzz",
    "--report": "python -m checkpoint_fuzz",
    "--scale": "python -m benchmarks.run",
    "--seeds": "python -m checkpoint_fuzz",
    "--shrink": "python -m checkpoint_fuzz",
    "--examples": "python -m gate.schema_fuzz",
    "--coverage": "python -m gate.schema_fuzz",
    "--soak": "python -m benchmarks.run",
    "--texts": "examples/fastembed_migration.py",
    "--model-config-name": "tritonserver",
    "--load-model": "tritonserver",
    "--model-control-mode": "tritonserver",
    "--strict-readiness": "tritonserver",
    "--http-thread-count": "tritonserver",
}
"""Options that are not `sie-triton`'s, and whose they are."""

MENTIONS: Mapping[str, str] = {
    "sie-triton build --force -m ID": "it builds a model anew; tests/e2e runs it",
    "sie-triton build -r /models/repository -m ID": "a path inside a container",
    "sie-triton doctor": "what it finds is the machine's; tests/embedded reads it",
    "sie-triton fetch URL": "it needs an object store; tests/frontend/test_object_store.py has one",
    "sie-triton keys check FILE": "it needs a file of keys; docs/keys.md makes one and checks it",
    "sie-triton migrate check -m ID": "it needs an index and a server; docs/migrate-check.md has both",
    "sie-triton doctor --clean": "it would empty the caches that tests share; tests/embedded/test_leavings.py runs it",
    "sie-triton tune": NOT_HERE["sie-triton tune"],
    "sie-triton verify": "it takes half a minute, and docs/quick-start.md runs it",
}
"""Commands within sentences whose options are checked without running them."""

PLACEHOLDERS: Mapping[str, str] = {
    "ID": "sentence-transformers/all-MiniLM-L6-v2",
    "DIR": "model_bundles",
    "PATH": "model_bundles",
    "REPOSITORY": "model_repository",
    "RULE": "L101",
}
"""What a command within a sentence leaves open."""
