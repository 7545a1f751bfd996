"""Ctrl-C in a command: answered at once, never lost; the second one ends the process without waiting for anything.

Python runs a signal's handler when the main thread is back in the interpreter, which takes seconds where it computes in
C. So a thread of its own, which the signal wakes through a pipe, answers and ends. A `KeyboardInterrupt` that is raised
in a finaliser or a weak reference's callback is printed and dropped, and the command would go on: it is raised again.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

EXIT_CODE: Final = 130
"""As a shell reports an end by SIGINT."""

_ANSWER: Final = "stopping; Ctrl-C again ends at once\n"
_AGAIN_S: Final = 0.05

_fleeting: set[Path] = set()


@dataclass
class _Interrupts:
    """Whether interrupts are answered here, and how many of those to come are no new ones."""

    on: bool = False
    repeated: int = 0


_watch = _Interrupts()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Answer interrupts within. Nothing happens where SIGINT is not Python's own: whoever started us with it ignored
    wants it so.
    """
    if threading.current_thread() is not threading.main_thread() or _watch.on:
        yield
        return
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken, hook = signal.set_wakeup_fd(writer, warn_on_full_buffer=False), sys.unraisablehook
    sys.unraisablehook = partial(_raise_lost, hook)
    _watch.on, _watch.repeated = True, 0
    thread = threading.Thread(target=_answer, args=(reader,), name="interrupts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _watch.on = False
        sys.unraisablehook = hook
        signal.set_wakeup_fd(woken)
        os.close(writer)  # which ends the thread, once it has said what there is to say
        thread.join(1.0)


@contextlib.contextmanager
def left_to_others() -> Iterator[None]:
    """Whoever runs within has handlers of its own, and answers by itself."""
    if not _watch.on:
        yield
        return
    writer, _watch.on = signal.set_wakeup_fd(-1), False
    try:
        yield
    finally:
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _watch.on = True


@contextlib.contextmanager
def fleeting(folder: Path) -> Iterator[Path]:
    """A folder that its maker removes; where the process ends at once, it is removed all the same."""
    _fleeting.add(folder)
    try:
        yield folder
    finally:
        _fleeting.discard(folder)


def until_the_end(folder: Path) -> Path:
    """A folder that is removed when the process ends, in whichever way."""
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _fleeting.add(folder)
    return folder


def tell(text: str) -> None:
    """Write to stderr from a signal's handler: no lock is taken, and no buffer is entered a second time."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def _answer(reader: int) -> None:
    seen = 0
    while came := os.read(reader, 64):
        for _ in filter(signal.SIGINT.__eq__, came):
            if _watch.repeated:
                _watch.repeated -= 1
                continue
            seen += 1
            if seen == 1:
                tell(_ANSWER)
                continue
            for folder in tuple(_fleeting):
                shutil.rmtree(folder, ignore_errors=True)
            tell("ended\n")
            os._exit(EXIT_CODE)
    os.close(reader)


def _raise_lost(hook: Callable[[sys.UnraisableHookArgs], object], unraisable: sys.UnraisableHookArgs) -> None:
    """What `hook` does with an exception that nobody can catch; an interrupt comes again when somebody can."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        hook(unraisable)
        return
    _watch.repeated += _watch.on
    again = threading.Timer(_AGAIN_S, _thread.interrupt_main)
    again.daemon = True
    again.start()
