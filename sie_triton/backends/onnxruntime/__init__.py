"""What the ONNX Runtime backend reads, compares and refuses when it loads a model."""
