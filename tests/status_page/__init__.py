"""The status page: what it is told, who gets it, and what it does in a real browser."""
