"""The serving half: scheduling, text preparation, and the application against a small Triton over HTTP."""
