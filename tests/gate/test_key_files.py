"""Files of keys as editors, tools and accidents leave them: read whole, or refused with the keys from before in use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from frontend.key_help import key
from hypothesis import given, settings
from hypothesis import strategies as st
from sie_frontend.access.following import KeyFile
from sie_frontend.access.keyfile import MAX_FILE_BYTES, KeysError, parse_keys

LINES = "\n".join(key(f"k{number}", f"secret {number}", models="acme/*").line for number in range(5)) + "\n"


def taken(file: KeyFile) -> list[str] | None:
    """The names, once a change was seen twice; None where there is none."""
    found = file.changed() or file.changed()
    return None if found is None else [one.name for one in found]


def replaced_by_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda file: file.unlink(), "no such file"),
        (lambda file: file.unlink() or file.mkdir(), "is a directory"),
        (lambda file: file.unlink() or file.symlink_to(file), "too many levels of symbolic links"),
        (replaced_by_a_pipe, "no regular file"),
        (lambda file: file.unlink() or file.symlink_to("/dev/zero"), "no regular file"),
        (lambda file: file.write_bytes(b"\xff\xfe" + LINES.encode("utf-16-le")), "not UTF-8"),
        (lambda file: file.write_text(LINES + LINES), "line 6: its name stands in an earlier line"),
        (lambda file: file.write_text(LINES[:-10]), "line 5: "),
        (lambda file: file.write_text("\ufeff" + LINES), "line 1: "),
        (lambda file: file.write_text(LINES.replace("k3", "k\x003")), "line 4: "),
        (lambda file: file.write_bytes(b"#" * (MAX_FILE_BYTES + 1)), "more than"),
    ],
)
def test_what_cannot_be_used_is_told_once_and_its_repair_is_seen(
    spoil: Callable[[Path], object], expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(LINES)
    file = KeyFile(path)
    assert len(file.read()) == 5
    spoil(path)
    assert file.changed() is None
    with pytest.raises(KeysError) as caught:
        file.changed()
    assert expected in str(caught.value)
    assert file.changed() is None
    with pytest.raises(KeysError):  # a server does not start with it
        KeyFile(path).read()
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_text(LINES.replace("k1", "new"))
    assert taken(file) == ["k0", "new", "k2", "k3", "k4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(LINES)
    path.chmod(0)
    with pytest.raises(KeysError, match="permission denied"):
        KeyFile(path).read()


def test_a_file_that_is_written_in_pieces_is_taken_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(LINES)
    file = KeyFile(path)
    file.read()
    new = LINES.replace("secret", "other").replace("k", "n")
    for end in range(0, len(new), 7):
        path.write_text(new[:end])
        assert file.changed() is None
    path.write_text(new)
    assert taken(file) == ["n0", "n1", "n2", "n3", "n4"]


def test_a_file_that_is_replaced_while_it_is_read_is_one_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    contents = [LINES, LINES.replace("k", "n")]
    path.write_text(contents[0])
    file = KeyFile(path)
    file.read()
    done = threading.Event()

    def replace() -> None:
        for number in range(300):
            beside = tmp_path / f"new-{number}"
            beside.write_text(contents[number % 2])
            beside.rename(path)
        done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    while not done.is_set():
        found = file.changed()
        assert found is None or {one.name[0] for one in found} in ({"k"}, {"n"})
        assert found is None or len(found) == 5
    thread.join()


@settings(max_examples=200)
@given(st.integers(0, len(LINES)), st.integers(0, 255))
def test_a_spoiled_byte_never_gives_other_rights(place: int, byte: int) -> None:
    """Any byte changed or cut: the keys that are read are those that were written, or the file is refused."""
    known = {one.name: one for one in parse_keys(LINES)}
    for spoiled in (
        LINES.encode()[:place],
        LINES.encode()[:place] + bytes([byte]) + LINES.encode()[place + 1 :],
    ):
        try:
            found = parse_keys(spoiled.decode())
        except (KeysError, UnicodeDecodeError):
            continue
        changed = [one for one in found if known.get(one.name) != one]
        assert len(changed) <= 1
