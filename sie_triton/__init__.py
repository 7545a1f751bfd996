"""Compile SIE model bundles into NVIDIA Triton model repositories."""

__version__ = "0.1.0"
