"""Page models: small random checkpoints, their graphs and builds, beside transformers' own classes."""
