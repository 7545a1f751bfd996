"""Graphs in half precision as a GPU computes them: every tensor rounded, every tensor's range looked at."""
