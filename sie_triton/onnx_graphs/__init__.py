"""ONNX graphs without torch: written from a checkpoint's configuration and tensors, packed, finished, saved.

Nothing here may import torch. An architecture or a head that is not written here is `Declined`, and torch traces it.
"""
