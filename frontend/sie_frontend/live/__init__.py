"""Models that come, change and go while it runs: what changed, loading beside, trying, switching. Knows no HTTP."""
