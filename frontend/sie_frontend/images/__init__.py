"""Pictures: the manifest's entry, bytes to RGB, RGB to what a graph takes, rows. Nothing of Triton or of HTTP."""
