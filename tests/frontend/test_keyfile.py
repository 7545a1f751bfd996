"""The file of keys: what a line says, what is refused, and that no message repeats a secret."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sie_frontend.access.following import KeyFile
from sie_frontend.access.keyfile import USUAL_VERBS, VERBS, ApiKey, KeysError, new_secret, parse_keys

from sie_triton.cli import main

HASH = "sha256:" + "0" * 64
OTHER = "sha256:" + "1" * 64


def test_a_line_says_everything() -> None:
    [first, second] = parse_keys(
        f"# ours\n\n  search {HASH}\r\nbulk {OTHER} models=acme/*,BAAI/bge-m3 verbs=encode,metrics at-once=2 "
        "requests-per-minute=60 tokens-per-minute=1000\n"
    )
    assert first == ApiKey("search", bytes(32))
    assert (first.verbs, first.models) == (USUAL_VERBS, ())
    assert second.verbs == {"encode", "metrics"}
    assert second.models == ("acme/*", "BAAI/bge-m3")
    assert (second.requests_per_minute, second.tokens_per_minute, second.at_once) == (60, 1000, 2)


def test_metrics_are_told_to_nobody_who_is_not_named() -> None:
    assert "metrics" not in USUAL_VERBS
    assert set(VERBS) > USUAL_VERBS


@pytest.mark.parametrize(
    ("models", "model_id", "reads"),
    [
        ((), "anything/at all", True),
        (("acme/*",), "acme/tiny", True),
        (("acme/*",), "acme/tiny:queries", True),
        (("acme/*",), "Acme/tiny", False),
        (("acme/*",), "other/acme/tiny", False),
        (("acme/tiny",), "acme/tiny", True),
        (("acme/tiny",), "acme/tiny2", False),
        # Who may ask a model may ask its profiles: a request's options name them anyway.
        (("acme/tiny",), "acme/tiny:queries", True),
        (("acme/tiny:queries",), "acme/tiny", False),
        (("a/b", "c/*"), "c/d", True),
        (("a/[bc]",), "a/c", True),
        (("a.c/*",), "abc/x", False),
        (("*",), "acme/tiny\n", True),
        (("acme/tiny",), "acme/tiny\n", False),
    ],
)
def test_patterns(models: tuple[str, ...], model_id: str, reads: bool) -> None:
    assert ApiKey("k", bytes(32), models=models).reads(model_id) is reads


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("search", "never a key itself"),
        (f"search {HASH[:-1]}", "64 hexadecimal digits"),
        (f"search {HASH.upper()}", "64 hexadecimal digits"),
        (f"-search {HASH}", "a key's name"),
        (f"search {HASH} verbs", "behind the hash stand options"),
        (f"search {HASH} verbs=encode verbs=score", "each once"),
        (f"search {HASH} verb=encode", "an option is unknown"),
        (f"search {HASH} verbs=encode,eat", "`verbs` has some of"),
        (f"search {HASH} verbs=", "`verbs` has some of"),
        (f"search {HASH} models=", "`models` has ids"),
        (f"search {HASH} at-once=0", "`at-once` is a whole number from 1 up"),
        (f"search {HASH} tokens-per-minute=1e6", "`tokens-per-minute` is a whole number"),
        (f"other {HASH}\nsearch {HASH}", "its hash stands in an earlier line"),
        (f"search {HASH}\nsearch {OTHER}", "its name stands in an earlier line"),
    ],
)
def test_a_mistake_names_its_line(line: str, expected: str) -> None:
    number = 2 + line.count("\n")
    with pytest.raises(KeysError, match=f"^line {number}: ") as caught:
        parse_keys(f"# keys\n{line}\n")
    assert expected in str(caught.value)


def test_a_key_in_the_place_of_its_hash_is_not_repeated() -> None:
    secret = new_secret()
    for line in (
        secret,
        f"search {secret}",
        f"search {HASH} {secret}",
        f"search {HASH} {secret}=1",
        f"{secret} {HASH}x",
    ):
        with pytest.raises(KeysError) as caught:
            parse_keys(line)
        assert secret not in str(caught.value)


_names = st.text("azAZ09", min_size=1, max_size=9).flatmap(lambda first: st.sampled_from([first, f"{first}_.@-"]))
_limits = st.none() | st.integers(1, 10**12)
_patterns = st.lists(st.text("abc/*?-.:", min_size=1, max_size=9), max_size=3).map(tuple)
_verbs = st.sets(st.sampled_from(VERBS), min_size=1).map(frozenset)
_keys = st.builds(ApiKey, _names, st.binary(min_size=32, max_size=32), _verbs, _patterns, _limits, _limits, _limits)


@settings(max_examples=30)
@given(st.lists(_keys, max_size=4, unique_by=(lambda key: key.name, lambda key: key.sha256)))
def test_what_is_written_is_read(keys: list[ApiKey]) -> None:
    assert parse_keys("\n".join(key.line for key in keys)) == keys


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_keys(text)
    except KeysError as error:
        assert str(error).startswith("line ")


# The command


@pytest.fixture
def sie_triton(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command: its exit code, and what it printed."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sie-triton", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


Run = Callable[..., tuple[int, str, str]]


def test_a_key_is_shown_once_with_the_line_of_its_hash(sie_triton: Run) -> None:
    options = ("-m", "acme/*", "--verb", "encode", "--tokens-per-minute", "1000")
    code, printed, said = sie_triton("keys", "new", "search", *options)
    secret, line = printed.splitlines()
    assert code == 0
    assert secret.startswith("sie_")
    assert len(secret) == len("sie_") + 43
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert line == f"search sha256:{digest} verbs=encode models=acme/* tokens-per-minute=1000"
    assert secret not in said


def test_a_file_grows_by_a_line_in_its_place(sie_triton: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# ours")
    place = file.stat().st_ino
    for name in ("search", "bulk"):
        _, printed, _ = sie_triton("keys", "new", name, "--file", file)
        [secret] = printed.splitlines()
        assert hashlib.sha256(secret.encode()).hexdigest() in file.read_text()
        assert secret not in file.read_text()
    assert file.stat().st_ino == place
    assert [key.name for key in KeyFile(file).read()] == ["search", "bulk"]
    code, printed, said = sie_triton("keys", "new", "bulk", "--file", file)
    assert (code, printed) == (2, "")
    assert "SIE716: " in said
    assert "has a key with the name `bulk` already" in said
    _, printed, _ = sie_triton("keys", "check", file)
    assert printed.splitlines()[0] == "search: encode score embeddings rerank models, every model"
    file.write_text("search\n")
    code, _, said = sie_triton("keys", "check", file)
    assert code == 2
    assert "line 1: " in said


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "said"),
    [
        (0o600, 0o700, None),
        (0o640, 0o755, None),
        (0o644, 0o755, "every user here may read it"),
        (0o660, 0o755, "others may write it"),
        (0o606, 0o755, "others may write it"),
        (0o600, 0o777, "others may put another file in its place"),
        (0o600, 0o1777, None),
    ],
)
def test_who_else_may_change_or_read_it_is_said(
    file_mode: int, folder_mode: int, said: str | None, sie_triton: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    file = folder / "keys.txt"
    file.write_text(f"search {HASH}\n")
    file.chmod(file_mode)
    folder.chmod(folder_mode)
    found = KeyFile(file).exposed()
    code, _, told = sie_triton("keys", "check", file)
    assert code == 0
    if said is None:
        assert (found, told) == (None, "")
        return
    assert found is not None and said in found and "`chmod " in found
    assert found in told
    # What is said mends it.
    subprocess.run(found.rpartition("`chmod ")[2].join(("chmod ", "")).strip("`"), shell=True, check=True)
    assert KeyFile(file).exposed() is None


def test_what_is_made_is_its_owners_alone(sie_triton: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    for name in ("search", "bulk"):
        _, _, said = sie_triton("keys", "new", name, "--file", file)
        assert "warning" not in said
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o600, False)])
def test_a_key_that_goes_to_a_file_for_everybody_is_warned_of(mode: int, warned: bool, tmp_path: Path) -> None:
    target = tmp_path / "search.key"
    target.touch(mode)
    target.chmod(mode)
    with target.open("w") as stdout:
        command = [sys.executable, "-m", "sie_triton", "keys", "new", "search"]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=True)
    assert ("`chmod 600` it" in done.stderr) == warned


def test_a_wrong_option_is_named(sie_triton: Run) -> None:
    for options, expected in (
        (("two words",), "a key's name"),
        (("k", "--verb", "eat"), "`verbs` has some of"),
        (("k", "-m", "a b"), "`models` has ids"),
    ):
        code, _, said = sie_triton("keys", "new", *options)
        assert code == 2
        assert expected in said
