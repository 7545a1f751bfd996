"""`sie-triton`: parses arguments, prints results and sets the exit code. Data goes to stdout, the rest to stderr.

Commands import what they run within their functions, so that `--help` stays fast.
"""

from __future__ import annotations

from collections.abc import Callable

from sie_triton.cli import build, catalog, deploy, doctor, explain, fetch, keys, lint, live, migrate, serve, tune
from sie_triton.cli.app import app, main
from sie_triton.cli.targets import shipped_bundles

__all__ = ["app", "main", "shipped_bundles"]

# In the order of `--help` and of docs/configuration.md.
COMMANDS: tuple[Callable[..., None], ...] = (
    build.plan,
    build.build,
    build.verify,
    serve.serve,
    serve.triton,
    serve.up,
    live.add,
    live.remove,
    live.rollback,
    live.list_models,
    live.status,
    tune.tune,
    catalog.catalog,
    lint.lint,
    deploy.deploy,
    fetch.fetch,
    doctor.doctor,
    explain.explain,
)
for _command in COMMANDS:
    # `list` is Python's own.
    app.command("list" if _command is live.list_models else None)(_command)
# Commands of two words.
app.add_typer(keys.app)
app.add_typer(migrate.app)
