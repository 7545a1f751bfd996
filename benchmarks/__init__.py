"""Side-by-side measurements of the served system, of what it is made of, and of its peers; never part of the tests."""

import os

# Whoever is measured imports ONNX Runtime, which then writes no id of the machine and looks up no telemetry host.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
