"""Texts and pictures in one row: entry, patches, prompts, rows. Nothing here knows of Triton or of HTTP."""
