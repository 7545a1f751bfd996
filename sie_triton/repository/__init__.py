"""The repository on disk: configurations, the manifest's assembly, staging and publishing. Never imports torch."""
