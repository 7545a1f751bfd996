"""SIE's own adapters in an interpreter that has sie-server, beside the real server: vectors, scores and `usage`."""
