"""The pip-installed tritonserver as a child process, and the Python-based backends it loads.

`server` starts and stops one tritonserver, `supervisor` keeps one running. `backends/` holds what the server's
stub processes import in place of NVIDIA's C++ backends; everything that a stub imports is kept free of torch
(for ONNX) and of the compiler.
"""
