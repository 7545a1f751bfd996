"""What is to be built: the catalogue of adapters and the plans of their graphs. Never imports torch, never writes."""
