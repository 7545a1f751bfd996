"""A stub that ended by itself is told from one that the server ended, without a server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from embedded.client import eventually
from sie_triton.embedded.stubs import StubWatch


def test_a_zombie_has_crashed_at_the_second_look(tmp_path: Path) -> None:
    fifo = tmp_path / "double" / "1" / "fifo"
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    watch = StubWatch(tmp_path)
    # As a stub's, its first argument lies in the repository; it waits for somebody to write.
    with subprocess.Popen(["cat", fifo]) as stub:
        assert eventually(lambda: watch.crashed_models(os.getpid()) == [] and watch.models == {stub.pid: "double"})
        stub.kill()
        status = Path(f"/proc/{stub.pid}/stat")
        assert eventually(lambda: " Z " in status.read_text())
        assert watch.crashed_models(os.getpid()) == []
        assert watch.crashed_models(os.getpid()) == ["double"]
        stub.wait()
        assert watch.crashed_models(os.getpid()) == []
