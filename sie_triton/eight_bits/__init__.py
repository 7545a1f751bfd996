"""Weights in 8 bits for CPUs: how a float32 graph is rewritten.

Numbers and graphs only: what a build makes of them is the compiler's. Nothing here imports torch.
"""
