"""Clients that other people wrote, in an environment of their own, against the real server."""
