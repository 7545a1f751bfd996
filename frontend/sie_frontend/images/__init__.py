"""Pictures: the manifest's entry, decoding, scaling, rows. Nothing here knows of Triton or of HTTP."""
