"""Whatever a page names exists: options, variables, commands, error codes, links; and whatever exists is named."""

from __future__ import annotations

import functools
import re
from dataclasses import fields
from pathlib import Path

import pytest
from deploy.metric_names import TRITON_METRICS, exposed_names
from sie_frontend.contract.errors import ERROR_TABLE
from sie_frontend.watch.metrics import Metrics

from sie_triton.deploy import DeployOptions
from sie_triton.pages import frontend_settings, model_table
from sie_triton.pages.__main__ import FOLDER, configuration, main
from sie_triton.pages.command_line import command_of, commands, parameters

from .exceptions import FOREIGN_OPTIONS, NOT_HERE, PENDING
from .markdown import ROOT, Page, pages, read_page
from .reader import EXECUTED, left_out, logical_lines, session

PAGES = pages()
NAMES = [page.name for page in PAGES]
EVERYTHING = [*PAGES, *(read_page(ROOT / name) for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
_SOURCES = ("sie_triton", "frontend", "sdk", "docker", "tests", "benchmarks")
_LANGUAGES = ("sh", "console", "python", "text", "yaml", "json")


def _codes(page: Page) -> list[str]:
    return [*(code for _, code in page.spans()), *(block.text for block in page.blocks)]


@functools.cache
def _sources() -> str:
    files = [ROOT / "Makefile", *ROOT.glob("docker-compose*.yml")]
    for name in _SOURCES:
        files += [path for path in (ROOT / name).rglob("*") if path.suffix in (".py", "") and path.is_file()]
    own = Path(__file__).parent
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in files if path.parent != own)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_says_what_it_is(page: Page) -> None:
    for block in page.blocks:
        assert block.language in _LANGUAGES, f"{page.name}:{block.line}"


# The rules speak of tritonserver's options, and their page is written from them.
WITH_OUR_OPTIONS = [page for page in EVERYTHING if page.name != "docs/lint-rules.md"]


@pytest.mark.parametrize("page", EVERYTHING, ids=[page.name for page in EVERYTHING])
def test_every_table_is_whole(page: Page) -> None:
    """A head, a rule, and rows of as many cells; a `|` within code would end a cell."""
    for table in re.findall(r"(?:^\|.*\n?)+", page.prose, re.MULTILINE):
        head, rule, *rows = (re.sub(r"\\\|", "", row).strip() for row in table.strip().split("\n"))
        assert re.fullmatch(r"\|(?: ?:?-+:? ?\|)+", rule), f"{page.name}: {head}"
        assert {row.count("|") for row in rows} <= {head.count("|")} == {rule.count("|")}, f"{page.name}: {head}"


@pytest.mark.parametrize("page", WITH_OUR_OPTIONS, ids=[page.name for page in WITH_OUR_OPTIONS])
def test_every_option_exists(page: Page) -> None:
    ours = {spelling for command in commands().values() for p in parameters(command) for spelling in p.spellings}
    ours |= {option for _, option, *_ in frontend_settings.settings()}
    known = ours | set(FOREIGN_OPTIONS) | set(PENDING) | {"--help", "--version", "--verbose"}
    for code in _codes(page):
        unknown = {found for found in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code) if found not in known}
        assert not unknown, f"{page.name}: {unknown}"


@pytest.mark.parametrize("page", EVERYTHING, ids=[page.name for page in EVERYTHING])
def test_every_variable_exists(page: Page) -> None:
    sources = _sources()
    for code in _codes(page):
        for name in re.findall(r"\bSIE_[A-Z0-9_]+\b", code):
            assert re.search(rf"\b{name}\b", sources) or name in PENDING, f"{page.name}: {name}"


@pytest.mark.parametrize("page", EVERYTHING, ids=[page.name for page in EVERYTHING])
def test_every_error_code_exists(page: Page) -> None:
    sources = _sources()
    for code in _codes(page):
        for name in re.findall(r"\bSIE\d{3}\b", code):
            assert f'"{name}"' in sources or name in PENDING, f"{page.name}: {name}"


@pytest.mark.parametrize("page", EVERYTHING, ids=[page.name for page in EVERYTHING])
def test_every_metric_exists(page: Page) -> None:
    families = {re.sub("_(bucket|total)$", "", name) for name in exposed_names(Metrics().registry)}
    for code in _codes(page):
        for name in re.findall(r"\b(?:sie_frontend|nv)_[a-z_]+[a-z]\b", code):
            family = re.sub("_total$", "", name)
            assert {name, family} & (families | TRITON_METRICS | set(PENDING)), f"{page.name}: {name}"


@pytest.mark.parametrize("page", EVERYTHING, ids=[page.name for page in EVERYTHING])
def test_every_link_leads_somewhere(page: Page) -> None:
    for link in page.links():
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        path = page.path if not target else (page.path.parent / target).resolve()
        assert path.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in read_page(path).anchors(), f"{page.name}: {link}"


def test_the_readme_leads_to_every_page() -> None:
    readme = read_page(ROOT / "README.md")
    named = {link.partition("#")[0] for link in readme.links()}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= named


def test_every_command_is_in_the_readme() -> None:
    readme = read_page(ROOT / "README.md")
    calls = [code.split()[1:] for _, code in readme.spans() if code.startswith("sie-triton ")]
    said = {found[0] if (found := command_of(words)) else words[0] for words in calls}
    assert set(commands()) <= said
    assert said - set(commands()) <= set(PENDING)


def test_every_error_that_clients_see_is_in_operations() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for row in ERROR_TABLE.values():
        assert row.code is None or f"`{row.code}`" in page, row.code
        assert re.search(rf"\b{row.status}\b", page), row


def test_every_option_of_a_deployment_is_on_the_command_line() -> None:
    """The messages of `SIE801` and docs/kubernetes.md name them."""
    spellings = {spelling for p in parameters(commands()["deploy"]) for spelling in p.spellings}
    assert {f"--{field.name.replace('_', '-')}" for field in fields(DeployOptions)} <= spellings


def test_what_is_excused_is_used() -> None:
    """A reason that nothing needs any more is to be removed."""
    lines = [line for page in PAGES for line in _commands(page)]
    for beginning in NOT_HERE:
        assert any(left_out(line) == NOT_HERE[beginning] for line in [*lines, *_mentioned()]), beginning
    codes = "\n".join(code for page in EVERYTHING for code in _codes(page))
    for option in FOREIGN_OPTIONS:
        assert option in codes, option


def _commands(page: Page) -> list[str]:
    found: list[str] = []
    for block in page.blocks:
        if block.language in EXECUTED and block.language != "python":
            text = block.text
            found += logical_lines(text) if block.language == "sh" else [line for line, _ in session(text)]
    return found


def _mentioned() -> list[str]:
    return [code for page in PAGES for _, code in page.spans() if code.startswith("sie-triton ")]


def test_the_configuration_page_is_up_to_date() -> None:
    assert (ROOT / FOLDER / "configuration.md").read_text(encoding="utf-8") == configuration(), (
        "run `python -m sie_triton.pages`"
    )


def test_the_page_of_models_is_up_to_date(public_bundles: Path) -> None:
    assert (ROOT / FOLDER / "models.md").read_text(encoding="utf-8") == model_table.render(public_bundles), (
        "run `python -m sie_triton.pages`"
    )


def test_a_stale_page_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--folder", str(tmp_path), "--left-out", str(tmp_path / "left_out.txt")]
    assert main(["--check", *places]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main(places) == 0
    assert main(["--check", *places]) == 0
    page = tmp_path / "configuration.md"
    page.write_text(page.read_text(encoding="utf-8").replace("`--force`", "`--forge`"), encoding="utf-8")
    assert main(["--check", *places]) == 1
