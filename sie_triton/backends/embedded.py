"""What the embedded server reads besides what NVIDIA's backends do, and where."""

from __future__ import annotations

from typing import Final

CONFIG_NAME: Final = "embedded"
"""`configs/embedded.pbtxt` is what the embedded server reads of a model on a CPU; NVIDIA's reads `config.pbtxt`."""
STREAMS: Final = "streams"
"""Parameter: how many runs the one process of a model computes at a time; 1 where it is not written."""
