"""What of the documentation cannot be run here, and what belongs to other programs: all of it, with the reason."""

from __future__ import annotations

from collections.abc import Mapping

NOT_HERE: Mapping[str, str] = {
    "docker": "there is no container engine; tests/deploy reads the same compose files and runs the same images' steps",
    "kubectl": "there is no cluster; tests/deploy checks the manifests against Kubernetes' schemas",
    "sie-triton tune": "it measures the machine for minutes; tests of its own run it",
}
"""Beginnings of commands that are not run. They must still be commands that a shell can read."""

PENDING: Mapping[str, str] = {
    "--format": "ONNX or TorchScript",
    "--layout": "one graph or an ensemble",
    "--precision": "the type of the weights",
    "--device": "the machines that a repository is for",
    "tune": "budgets and streams measured on this machine",
}
"""Options and commands of `sie-triton` that the pages describe before they have landed. One that the command line
does not have yet is skipped; one that it has is run as any other, whether or not it is listed here."""

FOREIGN_OPTIONS: Mapping[str, str] = {
    "--build-arg": "docker",
    "--target": "docker",
    "--update-golden": "pytest, tests/conftest.py",
    "--wait": "docker",
    "--check": "python -m sie_triton.pages",
    "--texts": "examples/fastembed_migration.py",
    "--url": "examples/fastembed_migration.py",
    "--cache-config": "tritonserver",
    "--disable-auto-complete-config": "tritonserver",
    "--model-config-name": "tritonserver",
    "--rate-limit": "tritonserver",
}
"""Options that are not `sie-triton`'s, and whose they are."""

MENTIONS: Mapping[str, str] = {
    "sie-triton build --force": "a build of everything; tests/e2e runs it",
    "sie-triton build -r /models/repository -m ID": "a path inside a container",
    "sie-triton doctor": "what it finds is the machine's; tests/e2e reads it",
    "sie-triton tune": NOT_HERE["sie-triton tune"],
    "sie-triton verify": "it takes half a minute, and docs/quick-start.md runs it",
}
"""Commands within sentences whose options are checked without running them."""

PLACEHOLDERS: Mapping[str, str] = {
    "ID": "sentence-transformers/all-MiniLM-L6-v2",
    "DIR": "model_bundles",
    "REPOSITORY": "model_repository",
    "RULE": "L101",
}
"""What a command within a sentence leaves open."""
