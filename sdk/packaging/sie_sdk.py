"""Where the import name `sie_sdk` leads if nobody else has it: to the files of the distribution `sie-triton-sdk`.

SIE's own distribution, `sie-sdk`, installs a folder `sie_sdk/`. If ours installed one as well, whichever of the two is
installed or removed last would overwrite or delete files of the other. So ours has its files in `sie_triton_sdk/`, and
this module gives them the name. Python prefers a folder with an `__init__.py` to a module: while SIE's own SDK is
installed, the import finds that one; once it is gone, however it went, the import finds ours.
"""

import importlib.util
import sys
from pathlib import Path


def _become_the_package() -> None:
    folder = Path(__file__).resolve().with_name("sie_triton_sdk")
    beginning = folder / "__init__.py"
    if not beginning.is_file():
        raise ImportError(
            f"sie-triton-sdk is installed, but its files in {folder} are gone; install it again: "
            "`pip install --force-reinstall --no-deps sie-triton-sdk`, or `./sdk` in a checkout of sie-triton",
            name=__name__,
        )
    spec = importlib.util.spec_from_file_location(__name__, beginning, submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None, "a path that ends in `.py` has a loader"
    package = importlib.util.module_from_spec(spec)
    # The import system returns what stands here when this module is done.
    sys.modules[__name__] = package
    spec.loader.exec_module(package)


_become_the_package()
