"""Models that come, change and go while it runs."""
