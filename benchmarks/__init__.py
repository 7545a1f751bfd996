"""Side-by-side measurements of the served system, of what it is made of, and of its peers; and what exercises it.

Never part of the tests, which run the short form of an exercise.
"""

import os

# Whoever is measured imports ONNX Runtime, which then writes no id of the machine and looks up no telemetry host.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
