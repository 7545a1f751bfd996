"""What a model's tensors mean, one file for each kind of output. No I/O beyond a model's own tables."""
