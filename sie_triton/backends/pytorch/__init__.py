"""What the PyTorch backend reads of a TorchScript model, and how it finds the tensors of `forward`."""
