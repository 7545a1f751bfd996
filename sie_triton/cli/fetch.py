"""`fetch`: a built repository out of an object store, into a folder."""

from __future__ import annotations

from typing import Annotated

import typer

from sie_triton.cli.options import DEFAULT_REPOSITORY, BuiltRepository
from sie_triton.cli.printing import say


def fetch(
    url: Annotated[str, typer.Argument(help="The built repository: `s3://`, `gs://` or any URL that fsspec knows.")],
    repository: BuiltRepository = DEFAULT_REPOSITORY,
) -> None:
    """Copy a built repository from an object store into a folder: what has changed, checked, and exchanged at once."""
    from sie_triton.repository.object_store import copy_repository

    copy_repository(url, repository, say)
    say(f"`{repository}` is the repository of {url}")
