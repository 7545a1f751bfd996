"""Whether a stored index can stay: its sample is embedded again by a running server, and differences are explained."""
