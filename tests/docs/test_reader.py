"""The reader notices: a command that fails, output that differs, a process that stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .markdown import Page, read_page
from .reader import Reader, Surprise, left_out, logical_lines, not_yet, session

Read = Callable[[str], list[str]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads a page of this text; returns what was skipped."""
    (tmp_path / "repository").mkdir()
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(Page, "name", "page.md")
    reader = Reader(tmp_path / "reader", tmp_path / "repository", tmp_path / "weights", {}, shared=lambda: 4711)

    def run(text: str) -> list[str]:
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        try:
            reader.read(read_page(path))
        finally:
            assert reader.stop() == []
        return reader.skipped

    return run


def block(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```", ""])


def test_a_page_that_is_right(read: Read) -> None:
    page = "Say it:\n\n" + block("sh", "cat > said <<'EOF'", "one", "two and three", "EOF", "cat said")
    page += block("text", "one", "two … three") + block("console", "$ echo a; echo b", "b", "$ cat said", "one")
    assert read(page + block("python", "print('http://127.0.0.1:8080')") + block("text", "http://127.0.0.1:8080")) == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (block("sh", "true", "false", "echo never"), "page.md:2: ended with 1"),
        (block("console", "$ echo yes", "no"), "nothing printed is like `no`"),
        (block("console", "$ printf 'b\\na\\n'", "a", "b"), "nothing printed is like `b`"),
        (block("sh", "echo yes") + block("text", "ye"), "nothing printed is like `ye`"),
        (block("python", "raise SystemExit(3)"), "ended with 3"),
        (block("sh", "sie-triton serve", "echo after"), "before the end of its block"),
        (block("sh", "sie-triton serve -r nowhere"), "never became ready"),
        (block("sh", "sie-triton plam -m x"), "ended with 2"),
    ],
)
def test_a_page_that_is_wrong(read: Read, page: str, words: str) -> None:
    with pytest.raises(Surprise, match=words):
        read(page)


def test_what_cannot_run_is_skipped_with_its_reason(read: Read) -> None:
    [skipped] = read(block("sh", "export X=1", 'NAMES="a b" docker compose up --wait', "echo $X") + block("text", "1"))
    assert skipped.startswith('NAMES="a b" docker compose up --wait: there is no container engine')


def test_lines_of_a_script() -> None:
    script = "a \\\n  --b\ncat <<'EOF'\nx \\\ny\nEOF\nc\n"
    assert logical_lines(script) == ["a --b", "cat <<'EOF'\nx \\\ny\nEOF", "c"]
    assert session("$ a\n1\n2\n$ b\n") == [("a", "1\n2\n"), ("b", "")]


def test_what_the_command_line_has() -> None:
    assert not_yet(["sie-triton", "build", "-m", "x", "--repository=r"]) == []
    assert not_yet(["sie-triton", "build", "-m", "x", "--colour"]) == ["--colour"]
    assert not_yet(["sie-triton", "paint"]) == ["paint"]
    assert not_yet(["docker", "--colour"]) == []
    assert left_out("sie-triton build -m x --colour") == ""  # it would fail, and is meant to
    assert left_out("dockerize") == ""
