"""`migrate scan`: what programs call is found by reading them, and each model is judged by the bundles there are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sie_triton.bundle import Bundle, load_bundles
from sie_triton.cli import main, shipped_bundles
from sie_triton.migrate.scan import Scan, scan
from sie_triton.migrate.scan.find import find_calls
from sie_triton.migrate.scan.programs import Program, Unread, read_programs
from sie_triton.migrate.scan.table import callables

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"

Judge = Callable[[str], Scan]


def found_in(root: Path) -> list[str]:
    programs = [entry for entry in read_programs(root) if isinstance(entry, Program)]
    return [
        " | ".join(
            [
                call.place.removeprefix(f"{root}/"),
                call.library,
                call.task,
                str(call.model),
                call.note + (" (server)" if call.server else ""),
            ]
        ).rstrip(" |")
        for call in find_calls(programs)
    ]


def test_every_style_is_found_and_nothing_else() -> None:
    expected = (HERE / "programs_expected.txt").read_text(encoding="utf-8").splitlines()
    assert found_in(PROGRAMS) == expected


@pytest.mark.parametrize("name", ["flow", "openai_calls", "optional", "plain_fastembed", "wrappers"])
def test_what_python_itself_gives_to_embedders_is_found(name: str) -> None:
    program = PROGRAMS / f"{name}.py"
    done = subprocess.run(
        [sys.executable, HERE / "recorder.py", program], capture_output=True, text=True, check=True, timeout=60
    )
    given = {(line, model) for line, model in json.loads(done.stdout) if not model.startswith((":", "gpt", "http"))}
    assert len(given) >= 6
    found = {tuple(line.split(" | ")[:4:3]) for line in found_in(program.parent) if line.startswith(f"{program.name}:")}
    assert {(f"{program.name}:{line}", model) for line, model in given} <= found


def test_the_whole_folder_is_read_as_a_stranger_would_see_it(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    call = "from fastembed import TextEmbedding\nTextEmbedding('a/b')\n"
    for folder in (".venv", "env"):
        (tmp_path / folder / "hidden.py").write_text(call, encoding="utf-8")
    (tmp_path / "old.py").write_text('print "Python 2"\n', encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe9'\n" + call.encode())
    (tmp_path / "bytes.py").write_bytes(b"name = '\xe9'\n")
    (tmp_path / "list.ipynb").write_text("[]", encoding="utf-8")
    (tmp_path / "deep.py").write_text("x = " + "+".join(["'a'"] * 20000), encoding="utf-8")
    (tmp_path / "loop.py").write_text("a = b\nb = a\nfrom fastembed import TextEmbedding\nTextEmbedding(a)\n", "utf-8")
    (tmp_path / "round").symlink_to(tmp_path)
    read = list(read_programs(tmp_path))
    unread = {entry.path.name for entry in read if isinstance(entry, Unread)}
    assert {"old.py", "bytes.py", "list.ipynb"} <= unread <= {"old.py", "bytes.py", "list.ipynb", "deep.py"}
    names = found_in(tmp_path)
    assert [line.partition(" ")[0] for line in names] == ["latin.py:4", "loop.py:4"]
    assert "None" in names[1]


def test_names_that_go_in_circles_end(tmp_path: Path) -> None:
    """Modules that import each other, functions that call themselves, and many steps with several ways at each."""
    (tmp_path / "one.py").write_text("from two import make\nfrom one import make as again\n", encoding="utf-8")
    (tmp_path / "two.py").write_text("from one import make, again\nagain(make())\n", encoding="utf-8")
    many = [f"def f{n}(a='m/{n}', b='m/x'):\n    return f{n + 1}(a or b, b) or f{n + 1}(b, a)\n" for n in range(40)]
    last = "def f40(a, b):\n    return TextEmbedding(a + b)\n"
    loops = "c = d()\nd = c()\nc.x.embed()\ndef g(n='a/b'):\n    return TextEmbedding(n) or g(n)\n"
    text = "\n".join(["from fastembed import TextEmbedding", *many, last, loops])
    (tmp_path / "three.py").write_text(text, encoding="utf-8")
    found = found_in(tmp_path)
    assert [line for line in found if "a/b" in line] == [f"three.py:{text.count(chr(10))} | fastembed | dense | a/b"]


def test_nothing_is_executed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program.py"
    program.write_text(f"open({str(ran)!r}, 'w')\nimport fastembed\nfastembed.TextEmbedding()\n", encoding="utf-8")
    assert len(found_in(program)) == 1
    assert not ran.exists()


@pytest.fixture(scope="module")
def every_bundle(public_bundles: Path) -> Mapping[str, Bundle]:
    return load_bundles(public_bundles)[0]


@pytest.fixture
def judge(tmp_path: Path, every_bundle: Mapping[str, Bundle]) -> Judge:
    """Scans a program of one line behind the usual imports, by SIE's public bundles."""

    def judged(line: str) -> Scan:
        program = tmp_path / "program.py"
        imports = "from fastembed import *\nfrom sentence_transformers import *\nimport openai, requests\n"
        program.write_text(imports + line, encoding="utf-8")
        return scan(program, every_bundle)

    return judged


CASES: Mapping[str, tuple[str, str, str]] = {
    # A line -> status, the id that serves it, and words of what differs or why not.
    "TextEmbedding('intfloat/multilingual-e5-large')": ("missing", "None", "no bundle"),
    "TextEmbedding('baai/BGE-small-en-v1.5')": ("same", "BAAI/bge-small-en-v1.5:candle", ""),
    "TextEmbedding('nomic-ai/nomic-embed-text-v1.5')": ("differs", "nomic-ai/nomic-embed-text-v1.5:candle", "length"),
    "TextEmbedding('nomic-ai/nomic-embed-text-v1.5-Q')": ("refused", "None", "int8"),
    "SparseTextEmbedding('prithivida/Splade_PP_en_v1')": ("refused", "None", "pickle"),
    "TextEmbedding('minishlab/potion-base-8M')": ("refused", "None", "without a transformer"),
    "TextEmbedding('Qdrant/clip-ViT-B-32-text')": ("same", "openai/clip-vit-base-patch32", ""),
    "SparseTextEmbedding('Qdrant/bm25')": ("refused", "None", "BM25"),
    "SparseTextEmbedding('Qdrant/bm42-all-minilm-l6-v2-attentions')": ("refused", "None", "BM42"),
    "SparseTextEmbedding('Qdrant/minicoil-v1')": ("refused", "None", "miniCOIL"),
    "LateInteractionTextEmbedding('colbert-ir/colbertv2.0')": ("same", "colbert-ir/colbertv2.0", ""),
    "TextCrossEncoder('Xenova/ms-marco-MiniLM-L-6-v2')": ("same", "cross-encoder/ms-marco-MiniLM-L-6-v2", ""),
    "TextCrossEncoder('BAAI/bge-reranker-v2-m3-int8')": ("refused", "None", "int8"),
    "ImageEmbedding('Qdrant/resnet50-onnx')": ("refused", "None", "images"),
    "ImageEmbedding('Qdrant/clip-ViT-B-32-vision')": ("same", "openai/clip-vit-base-patch32", ""),
    "ImageEmbedding()": ("refused", "None", "images"),
    "SentenceTransformer('all-MiniLM-L6-v2')": ("same", "sentence-transformers/all-MiniLM-L6-v2", ""),
    "SentenceTransformer('intfloat/e5-large-v2')": ("differs", "intfloat/e5-large-v2", "`passage: `"),
    "SentenceTransformer('./mine')": ("missing", "None", "folder of your own"),
    "SentenceTransformer('openai/clip-vit-large-patch14')": ("missing", "None", "no bundle"),
    "SentenceTransformer('BAAI/bge-reranker-v2-m3')": ("missing", "None", "gives score, not dense"),
    "CrossEncoder('BAAI/bge-reranker-v2-m3')": ("same", "BAAI/bge-reranker-v2-m3", ""),
    "SparseEncoder('BAAI/bge-m3')": ("same", "BAAI/bge-m3", ""),
    "openai.OpenAI().embeddings.create(model='text-embedding-3-small', input='a')": ("other", "None", "OpenAI"),
    "openai.OpenAI(base_url='http://a/v1').embeddings.create(model='text-embedding-ada-002', input='a')": (
        "unknown",
        "None",
        "any model",
    ),
    "requests.post('http://a/embed', json={'inputs': 'a'})": ("unknown", "None", "server decides"),
}


@pytest.mark.parametrize("line", CASES)
def test_what_becomes_of_a_call(line: str, judge: Judge) -> None:
    status, serves, words = CASES[line]
    (move,) = judge(line).moves
    assert (move.status, str(move.serves)) == (status, serves), move
    assert words in " ".join((move.reason, *move.differences))
    assert move.change or status == "refused"
    assert judge(line).all_can_move is (status in ("same", "differs"))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("nobody/e5-tiny", "`sie-triton build -m nobody/e5-tiny` derives one from its checkpoint"),
        ("e5-tiny", "`sie-triton build -m OWNER/NAME` derives one from its checkpoint"),
        ("./mine", "`sie-triton build -m ./mine` derives a bundle from its checkpoint"),
    ],
)
def test_a_model_without_a_bundle_needs_none(name: str, way: str, judge: Judge) -> None:
    (move,) = judge(f"SentenceTransformer({name!r})").moves
    assert move.status == "missing"
    assert move.change.startswith(way)


def test_what_needs_its_authors_code_is_refused_with_the_flag_that_tries_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import fastembed\nfastembed.TextEmbedding('jinaai/jina-embeddings-v2-small-en')\n", "utf-8")
    (move,) = scan(program, load_bundles(shipped_bundles())[0]).moves
    assert (move.status, "JinaBERT" in move.reason) == ("refused", True)
    assert "--trust-remote-code" in move.change


def test_what_the_notes_say(judge: Judge) -> None:
    (bge,) = judge("TextEmbedding('BAAI/bge-small-en-v1.5')").moves
    assert bge.change == "from sie_triton_fastembed import TextEmbedding"
    notes = " ".join(bge.notes)
    assert "float16" in notes
    assert "Represent this sentence" in notes
    (own,) = judge("TextEmbedding('ibm-granite/granite-embedding-small-english-r2')").moves
    assert any("leaves both to its file" in note for note in own.notes)
    (local,) = judge("openai.OpenAI(base_url='http://a/v1').embeddings.create(model='BAAI/bge-m3', input='a')").moves
    assert local.change == 'base_url="http://localhost:8080/v1", model="BAAI/bge-m3"'


def test_a_refused_bundle_says_its_reason(tmp_path: Path) -> None:
    text = (shipped_bundles() / "BAAI__bge-small-en-v1.5.yaml").read_text(encoding="utf-8")
    (tmp_path / "one.yaml").write_text(
        text.partition("  candle:")[0].replace("bert_flash:BertFlash", "colqwen3:ColQwen3")
    )
    bundles, mistakes = load_bundles(tmp_path)
    assert not mistakes
    (tmp_path / "a.py").write_text("from fastembed import TextEmbedding\nTextEmbedding()\n")
    (move,) = scan(tmp_path, bundles).moves
    assert move.status == "refused"
    assert move.reason.startswith("matches text queries with page images (Qwen3-VL)")


def test_every_shipped_bundle_is_found_under_its_names(tmp_path: Path) -> None:
    bundles, mistakes = load_bundles(shipped_bundles())
    assert not mistakes
    names = {name for bundle in bundles.values() for name in (bundle.sie_id, bundle.hf_id) if name}
    classes = {"dense": "SentenceTransformer", "sparse": "SparseEncoder", "score": "CrossEncoder"}
    lines = ["from sentence_transformers import *"]
    for bundle in bundles.values():
        for output in set(bundle.outputs) & set(classes):
            lines.append(f"{classes[output]}({bundle.sie_id!r})")
    (tmp_path / "all.py").write_text("\n".join(lines), encoding="utf-8")
    moves = scan(tmp_path, bundles).moves
    assert len(moves) == len(lines) - 1
    assert {move.call.model for move in moves} <= names
    assert {move.status for move in moves} <= {"same", "differs"}
    assert all(_serves(bundles, move) for move in moves)


def _serves(bundles: Mapping[str, Bundle], move: Any) -> bool:
    return move.serves.partition(":")[0] == move.call.model and move.call.model in bundles


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["sie-triton", "migrate", "scan", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_exit_codes_and_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "app.py"
    program.write_text("from fastembed import TextEmbedding\n\nTextEmbedding()\nTextEmbedding()\n", encoding="utf-8")
    assert run(monkeypatch, tmp_path) == 0
    printed = capsys.readouterr()
    assert f"at {program}:3, {program}:4" in printed.out
    assert "2 calls in 1 files: 2 can move, 0 cannot" in printed.err
    program.write_text("from fastembed import TextEmbedding\n\nTextEmbedding(input())\n", encoding="utf-8")
    assert run(monkeypatch, program, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["all_can_move"]
    (call,) = said["calls"]
    assert (call["place"], call["status"], call["model"]) == (f"{program}:3", "unknown", None)
    program.write_text("print 1", encoding="utf-8")
    assert run(monkeypatch, program) == 1
    assert f"not read  {program}: does not parse" in capsys.readouterr().out
    assert run(monkeypatch, tmp_path / "nowhere") == 2
    assert "SIE901" in capsys.readouterr().err


def test_the_table_names_each_callable_once() -> None:
    names = [(package, row.name) for row in callables() for package in row.packages]
    assert len(names) == len(set(names))
    for row in callables():
        assert row.keywords or row.position is not None, row
        assert row.task in ("dense", "sparse", "multivector", "score", "image", "any")
