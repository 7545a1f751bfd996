"""One built repository for the tests that look into it and those that serve it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .checkpoints import MODEL, NAMES, PAGES, bundle_text, pages_text, write_colqwen, write_qwen3_vl


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of Qwen3-VL in `checkpoint` and of ColQwen2.5 in `pages`; `repository` has the three models."""
    from compiler.command import sie_triton

    made = tmp_path_factory.mktemp("seer")
    write_qwen3_vl(made / "checkpoint")
    (made / "bundles").mkdir()
    for adapter, name in NAMES.items():
        text = bundle_text(made / "checkpoint", adapter=adapter).replace(MODEL, name)
        (made / "bundles" / f"{adapter}.yaml").write_text(text, encoding="utf-8")
    write_colqwen(made / "pages")
    (made / "bundles" / "pages.yaml").write_text(pages_text(made / "pages" / "adapter"), encoding="utf-8")
    chosen = [part for name in (*NAMES.values(), PAGES) for part in ("-m", name)]
    chosen += ["--weights", f"acme/pages-base={made / 'pages' / 'base'}"]
    done = sie_triton("build", "--bundles", made / "bundles", *chosen, "-r", made / "repository", "--device", "cpu")
    assert done.code == 0, done.stderr
    return made
