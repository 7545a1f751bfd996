"""Random weights for checkpoints that tests write."""

from __future__ import annotations

import torch


def draw(module: torch.nn.Module, spread: float = 1.5, seed: int = 7) -> None:
    """Give every parameter seeded random numbers, norms and biases too, whose sums stay about as large as `spread`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.5 if parameter.dim() < 2 else spread / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
