"""The typer application, its root options and its exit codes. Which commands it has is in `sie_triton.cli`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Annotated

import typer

from sie_triton import __version__, interrupts
from sie_triton.cli.printing import err, out, print_diagnostics
from sie_triton.diagnostics import DiagnosticError
from sie_triton.diagnostics.codes import is_usage

app = typer.Typer(
    name="sie-triton",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compile SIE model bundles into Triton model repositories, check them, and serve them with SIE's contract.\n\n"
    "A first embedding: `sie-triton up -m sentence-transformers/all-MiniLM-L6-v2`",
)


class ExitCode(int, Enum):
    """What the process tells its caller; 0 stands for success.

    FAILED: a build, a verification or a server failed. USAGE: the arguments or a bundle are not valid. INTERRUPTED:
    the user ended it, as a shell reports SIGINT.
    """

    FAILED = 1
    USAGE = 2
    INTERRUPTED = interrupts.EXIT_CODE


def main() -> None:
    """Run the command line: print diagnostics and interrupts on stderr, and exit with an `ExitCode`."""
    try:
        with interrupts.watched():
            _command()()
    except DiagnosticError as error:
        print_diagnostics(error.diagnostics)
        usage = all(is_usage(diagnostic.code) for diagnostic in error.diagnostics)
        sys.exit(ExitCode.USAGE if usage else ExitCode.FAILED)
    except SystemExit as ended:
        # typer's own answer to an interrupt.
        if ended.code == ExitCode.INTERRUPTED:
            err.print("interrupted")
        raise


@cache
def _command() -> Callable[[], object]:
    """What typer makes of the application's functions: once a process, since it takes longer than most commands."""
    return typer.main.get_command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    # Eager: it must answer before the missing command is noticed.
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
