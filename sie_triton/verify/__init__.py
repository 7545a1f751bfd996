"""What decides whether a repository may be published or served. Never reads a checkpoint."""
