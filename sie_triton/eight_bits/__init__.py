"""Weights in 8 bits for CPUs: how a float32 graph is rewritten, and what that does to the order of answers.

Numbers and graphs only: what a build makes of them is the compiler's. Nothing here imports torch.
"""
