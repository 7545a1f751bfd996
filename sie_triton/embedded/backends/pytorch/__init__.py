"""`backend: "pytorch"`."""
