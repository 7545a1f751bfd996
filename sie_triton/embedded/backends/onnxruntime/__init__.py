"""`backend: "onnxruntime"`."""
