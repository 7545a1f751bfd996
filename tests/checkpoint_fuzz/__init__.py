"""Random checkpoints, saved by sentence-transformers itself, built and compared: right, refused by name, or a bug."""
