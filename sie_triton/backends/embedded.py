"""What the embedded server reads besides what NVIDIA's backends do, and where."""

from __future__ import annotations

from typing import Final

CONFIG_NAME: Final = "embedded"
"""`configs/embedded.pbtxt` is what the embedded server reads of a model on a CPU; NVIDIA's reads `config.pbtxt`."""
ALONE_THREADS: Final = "alone_threads"
"""Parameter: how many threads may compute a run of one row while no other is under way; 1 where it is not written."""
WIDEST_ROW: Final = "widest_row"
"""Parameter: up to how many positions a row that is alone may be filled; not at all where it is not written."""
STREAMS: Final = "streams"
"""Parameter: how many runs the one process of a model computes at a time; 1 where it is not written."""
