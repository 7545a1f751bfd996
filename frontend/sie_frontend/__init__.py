"""SIE's HTTP contract in front of an NVIDIA Triton server."""

__version__ = "0.1.0"
