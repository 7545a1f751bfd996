"""Workflows and forms by GitHub's own schemas; the hooks before a commit are what `make check` runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .ranges import ROOT

GITHUB = ROOT / ".github"
SCHEMAS = {
    **dict.fromkeys(sorted((GITHUB / "workflows").glob("*.yml")), "github-workflows"),
    **dict.fromkeys(sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")), "github-issue-forms"),
    GITHUB / "ISSUE_TEMPLATE" / "config.yml": "github-issue-config",
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def targets(name: str) -> list[str]:
    """What a target of the Makefile needs."""
    [needs] = re.findall(rf"^{name}:(.*)$", MAKEFILE, re.MULTILINE)
    words: list[str] = needs.split()
    return words


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_it_is_what_github_takes(path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        f"vendor.{SCHEMAS[path]}",
        path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [path for path in SCHEMAS if SCHEMAS[path] == "github-workflows"])
def test_a_workflow_runs_what_everybody_can_run_and_may_only_read(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "run" in step:
                program, *arguments = step["run"].split()
                assert program == "make" or (ROOT / program).is_file(), step
                assert all(targets(target) for target in arguments), step


def test_the_hooks_are_the_checks() -> None:
    [repository] = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local", "a hook from elsewhere would be fetched"
    hooks = {hook["id"]: hook["entry"] for hook in repository["hooks"]}
    assert set(targets("check")) <= set(hooks)
    for name, entry in hooks.items():
        program, *arguments = entry.split()
        assert program.startswith(".venv/bin/") or (program == "make" and targets(arguments[0])), name
