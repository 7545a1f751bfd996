"""Writes the generated pages; with `--check`, only compares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sie_triton.bundle.left_out import TABLE as LEFT_OUT
from sie_triton.embedded import fetching
from sie_triton.pages import (
    bundle_fields,
    checkpoint_keys,
    command_line,
    diagnostic_codes,
    frontend_settings,
    http_api,
    model_table,
)
from sie_triton.pages.public_bundles import TABLE

FOLDER = Path("docs")

_CONFIGURATION = """\
# Configuration

Generated from the code by `python -m sie_triton.pages`; do not edit.

Three things are configured: the commands, by options; the frontend, by variables of its environment; and each model,
by its bundle. There is no configuration file.

## The command line

`sie-triton --version` prints the version; `sie-triton --verbose` before a command logs what happens inside. Exit codes:
0 done, 1 a build, a verification or a server failed, 2 wrong usage or a bundle that is not valid, 130 interrupted.

{command_line}

## The frontend

Read once, at the start, by `sie-triton serve` and `sie-triton up`, whose own options come first, and by
`sie-triton-frontend`, which the frontend's container runs and which has the options below. `serve` and `up` have
options for the first six only, with `auto` as the default of `SIE_TRITON_DEVICE`; `up` builds into a folder and starts
a Triton of its own, so that it has no use for `SIE_TRITON_TRITON_URL` and says so. `sie-triton triton` reads
`SIE_TRITON_REPOSITORY` and `SIE_TRITON_DEVICE`.

{frontend}

## The embedded server

Where the environment has no tritonserver, `up`, `serve` and `triton` fetch it: NVIDIA's wheel, from the index that pip
or uv asks, into `~/.cache/sie-triton/tritonserver` ([install.md](install.md#tritonserver)).

| Variable | Default | Meaning |
|---|---|---|
| `{fetch}` | `true` | `false` forbids fetching it: `SIE701` says what to install instead. |

The compose files have variables of their own: [docker.md](docker.md#variables).

## The bundle

{bundle}
"""


def configuration() -> str:
    """`docs/configuration.md`."""
    return _CONFIGURATION.format(
        fetch=fetching.VARIABLE,
        command_line=command_line.chapter(),
        frontend=frontend_settings.chapter(),
        bundle=bundle_fields.chapter(),
    )


def _pages(bundles: Path) -> dict[str, str]:
    return {
        "checkpoints.md": checkpoint_keys.render(),
        "configuration.md": configuration(),
        "diagnostics.md": diagnostic_codes.render(),
        "http-api.md": http_api.render(),
        "models.md": model_table.render(bundles),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or compare them; the exit code is 1 where `--check` finds one out of date."""
    parser = argparse.ArgumentParser(prog="python -m sie_triton.pages", description="write the generated pages")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--bundles", type=Path, default=TABLE, help="a folder of bundles, or the table, for models.md")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pages are")
    parser.add_argument("--left-out", type=Path, default=LEFT_OUT, help="the models that are not served, for commands")
    options = parser.parse_args(arguments)
    pages = {options.folder / name: content for name, content in _pages(options.bundles).items()}
    pages[options.left_out] = model_table.render_left_out(options.bundles)
    stale = []
    for path, content in pages.items():
        if not options.check:
            path.write_text(content, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != content:
            stale.append(path)
    for path in stale:
        print(f"`{path}` is out of date; run `python -m sie_triton.pages`", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
