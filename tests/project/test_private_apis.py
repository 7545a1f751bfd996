"""Every private interface of another package that we use stands on its page, and its package has an upper bound."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .ranges import ROOT, ranges

PAGE = ROOT / "docs" / "private-apis.md"
OURS = ("sie_triton", "frontend/sie_frontend", "sdk/sie_sdk", "sdk/sie_triton_fastembed")
SOURCES = (*OURS, "tests", "tools", "benchmarks", "examples")
# Documented, in spite of their names: of `os`, and of every named tuple.
PUBLIC = {"_exit", "_asdict", "_fields", "_make", "_replace"}

Use = tuple[str, str]
"""A file and the part of a name that begins with an underscore."""


def modules() -> dict[str, ast.Module]:
    """Every source file of ours by its path."""
    paths = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def own_names(trees: dict[str, ast.Module]) -> set[str]:
    """Private names that our own files define: whoever uses these uses what is ours."""
    found = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def uses(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Private names of others in one file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (part for alias in node.names if _is_foreign(alias.name) for part in _private_parts(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _is_foreign(node.module or ""):
            yield from _private_parts(node.module or "")
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and not _is_self(node.value):
            yield from (name for name in [node.attr] if is_private(name) and name not in own | PUBLIC)
        elif isinstance(node, ast.Call) and _is_name(node.func, "getattr", "setattr", "hasattr"):
            named = node.args[1] if len(node.args) > 1 else None
            if isinstance(named, ast.Constant) and is_private(str(named.value)) and named.value not in own:
                yield str(named.value)


def _is_self(node: ast.expr) -> bool:
    return _is_name(node, "self", "cls") or (isinstance(node, ast.Call) and _is_name(node.func, "super"))


def _is_name(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _private_parts(name: str) -> list[str]:
    return [part for part in name.split(".") if is_private(part)]


def _is_foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and not top.startswith("sie_") and not (ROOT / "tests" / top).is_dir()


@cache
def found() -> set[Use]:
    trees = modules()
    own = own_names(trees)
    return {(path, name) for path, tree in trees.items() for name in uses(tree, own)}


def rows() -> list[tuple[str, tuple[str, ...]]]:
    """Of each row of the page, the dotted name and the files."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [
        (re.findall("`([^`]+)`", what)[0], tuple(re.findall("`([^`]+)`", where)))
        for what, where in (line.split(" | ")[:2] for line in lines)
    ]


def test_every_use_is_on_the_page() -> None:
    named = {(path, part) for name, paths in rows() for path in paths for part in _private_parts(name)}
    assert found() - named == set(), f"say why on {PAGE.relative_to(ROOT)}"


def test_everything_on_the_page_is_used() -> None:
    used = found()
    for name, paths in rows():
        for path in paths:
            private = _private_parts(name)
            if private:
                assert (path, private[-1]) in used, f"{name} in {path}"
            else:
                assert name in (ROOT / path).read_text(encoding="utf-8"), f"{name} in {path}"


def test_packages_whose_private_parts_users_get_have_an_upper_bound() -> None:
    bounded = ranges()
    for name, paths in rows():
        if any(path.startswith(OURS) for path in paths):
            distribution = canonicalize_name(name.partition(".")[0])
            assert distribution in bounded, distribution
            for requirement in bounded[distribution]:
                assert has_upper_bound(requirement), requirement


def has_upper_bound(requirement: Requirement) -> bool:
    return any(specifier.operator in ("<", "<=", "~=", "==") for specifier in requirement.specifier)


def test_what_a_file_uses_is_seen() -> None:
    source = """
import a._b
from c import _d, e
from f._g import h
from sie_triton.bundle import _ours
x._i.j
self._k
getattr(x, "_l", None)
os._exit(0)
y.__dict__
z._mine
"""
    assert set(uses(ast.parse(source), {"_mine"})) == {"_b", "_d", "_g", "_i", "_l"}
