"""Hostile and random requests against the real HTTP server: its document, its keys, its limits. No models' numbers."""
