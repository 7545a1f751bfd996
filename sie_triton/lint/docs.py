"""Writes `docs/lint-rules.md` from the rules; with `--check`, only compares.

Run it as `python -m sie_triton.lint.docs [--check] [FILE]`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sie_triton.lint.rules import RULES

DEFAULT_FILE = Path("docs/lint-rules.md")

_CHAPTERS = {
    "L1": "The configuration",
    "L2": "The configuration and its ONNX graph",
    "L3": "Ensembles",
    "L4": "Batching, queues and warm-up",
    "L5": "Instances and threads",
    "L6": "Folders and files",
    "L7": "Parameters and accelerators",
    "L8": "Releases and limits",
}
_HEAD = """\
# Lint rules

Generated from the rules by `python -m sie_triton.lint.docs`; do not edit.

An **error** makes Triton refuse the model or answer wrongly. A **warning** runs, but not as written. An **info** is
worth knowing. Rules hold for the releases that they name; releases are container tags such as `24.10`.
"""


def render() -> str:
    """The page: a table of all rules in each chapter, then every rule."""
    parts = [_HEAD]
    for prefix, title in _CHAPTERS.items():
        rules = [rule for rule in RULES.values() if rule.id.startswith(prefix)]
        parts.append(f"## {title}\n")
        parts.append("| Rule | Severity | What | Releases |\n|---|---|---|---|")
        parts.extend(f"| [{r.id}](#{r.id.lower()}) | {r.severity} | {r.title} | {r.versions} |" for r in rules)
        parts.append("")
        for rule in rules:
            needs = "the configuration alone" if rule.scope == "config" else "the repository"
            parts.append(
                f"### {rule.id}\n\n**{rule.title}** ({rule.severity}; releases: {rule.versions}; reads {needs})\n"
            )
            parts.append(f"{rule.explanation}\n\nHint: {rule.hint}.\n")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or compare it; the exit code is 1 where `--check` finds it out of date."""
    parser = argparse.ArgumentParser(prog="python -m sie_triton.lint.docs", description="write the page of lint rules")
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT_FILE)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args(arguments)
    page = render()
    if not options.check:
        options.file.write_text(page, encoding="utf-8")
        return 0
    if options.file.is_file() and options.file.read_text(encoding="utf-8") == page:
        return 0
    print(f"`{options.file}` is out of date; run `python -m sie_triton.lint.docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
