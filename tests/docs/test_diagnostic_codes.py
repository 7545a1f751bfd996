"""Every diagnostic code that the source uses is in the table, and so on the page; every row of the table is used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_triton.diagnostics.codes import AREAS, TABLE, known_codes
from sie_triton.pages import diagnostic_codes
from sie_triton.pages.__main__ import FOLDER

from .markdown import ROOT, read_page

PACKAGES = (ROOT / "sie_triton", ROOT / "frontend" / "sie_frontend")
# It names codes in order to sort them, and raises none.
NOT_RAISED_IN = ROOT / "sie_triton" / "diagnostics" / "codes.py"


def used_codes() -> dict[str, str]:
    """Each code that is a string of its own in the source, with a place of it."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            if path != NOT_RAISED_IN:
                for code, line in _codes(ast.parse(path.read_text(encoding="utf-8"))):
                    found.setdefault(code, f"{path.relative_to(ROOT)}:{line}")
    return found


def _codes(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"SIE\d{3}", node.value):
            yield node.value, node.lineno


def test_every_code_of_the_source_is_in_the_table() -> None:
    missing = {code: place for code, place in used_codes().items() if code not in known_codes()}
    assert not missing, f"add a line for each to {TABLE.relative_to(ROOT)}, then run `python -m sie_triton.pages`"


def test_no_code_is_put_together_out_of_the_sight_of_these_tests() -> None:
    parts = [place for path in _raising() for place in _parts_of_codes(path)]
    assert not parts, "write each code as a string of its own"


def _raising() -> list[Path]:
    found = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
    return [path for path in found if path != NOT_RAISED_IN and path.parent.name != "pages"]


def _parts_of_codes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr | ast.BinOp):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and re.search(r"\bSIE\d{0,2}$", str(part.value)):
                    yield f"{path.relative_to(ROOT)}:{part.lineno}"


def test_no_two_codes_mean_the_same() -> None:
    meanings = [row.meaning for row in known_codes().values()]
    assert len(set(meanings)) == len(meanings)


def test_every_row_of_the_table_is_used() -> None:
    assert known_codes().keys() - used_codes().keys() == set()


def test_a_code_without_a_row_is_noticed() -> None:
    assert dict(_codes(ast.parse('fail("SIE999", "text")'))) == {"SIE999": 1}
    assert "SIE999" not in known_codes()


def test_the_table_has_one_whole_line_for_each_code_in_order() -> None:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    codes = [line.partition(" | ")[0] for line in lines]
    assert codes == sorted(set(codes)) == list(known_codes())
    for row in known_codes().values():
        assert re.fullmatch(r"SIE\d{3}", row.code)
        assert row.code[3] in AREAS
        for text in (row.meaning, row.cause, row.hint):
            assert len(text) > 8, row.code
            assert text == text.strip()
            assert not text.endswith("."), row.code


def test_the_page_has_every_code_with_all_that_the_table_says() -> None:
    page = diagnostic_codes.render()
    for row in known_codes().values():
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{row.code}` |")]
        for text in (row.meaning, row.cause, row.hint):
            assert re.sub(r"docs/([a-z-]+\.md)", r"[\1](\1)", text)[1:] in line


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / FOLDER / "diagnostics.md").read_text(encoding="utf-8")
    assert page == diagnostic_codes.render(), "run `python -m sie_triton.pages`"


def test_codes_on_the_other_pages_are_in_the_table() -> None:
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / FOLDER).glob("*.md")]:
        for _, code in read_page(path).spans():
            for name in re.findall(r"\bSIE\d{3}\b", code):
                assert name in known_codes(), f"{path.name}: {name}"


@pytest.mark.parametrize(
    ("code", "exit_code"), [("SIE107", 2), ("SIE201", 2), ("SIE302", 1), ("SIE501", 1), ("SIE712", 2), ("SIE801", 2)]
)
def test_the_exit_code_of_a_code(code: str, exit_code: int) -> None:
    assert known_codes()[code].exit_code == exit_code


def test_the_table_is_found_where_the_package_is_installed() -> None:
    from sie_triton import diagnostics

    assert TABLE.parent == Path(diagnostics.__file__).parent
