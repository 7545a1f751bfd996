"""Graphs that are written without torch, against transformers' own models on the same random checkpoints."""
