"""Expected output kept as files; `--update-golden` writes them anew, for a person to read the difference."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


class Golden:
    """Compares text with the file of a name."""

    def __init__(self, update: bool) -> None:
        self._update = update

    def check(self, name: str, actual: str) -> None:
        """Fail where `actual` is not what the file says; an absent file fails as well."""
        path = FOLDER / name
        if self._update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(actual, encoding="utf-8")
        assert path.is_file(), f"no golden file `{name}`: run once with --update-golden and read what it writes"
        assert actual == path.read_text(encoding="utf-8")
