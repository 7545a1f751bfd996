"""Compile SIE model bundles into NVIDIA Triton model repositories."""

import os

__version__ = "0.1.0"

# ONNX Runtime 1.32 writes an id of the machine below HOME and looks up the host that collects its telemetry. It reads
# this once, when it is imported, so it is set before anything of ours can import it, and for the processes we start.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
