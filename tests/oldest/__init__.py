"""The graphs under the oldest ONNX Runtime that Triton's supported releases contain."""
