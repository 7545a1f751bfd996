"""From items to outputs: admission, runs, readiness. Knows rows and tensors, never tokens or pixels."""
