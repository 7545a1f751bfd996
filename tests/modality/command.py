"""`sie-triton` with the second modality: `python -m modality.command ARGUMENTS`."""

from __future__ import annotations

from sie_triton.cli import main

from .vectors import register

if __name__ == "__main__":
    register()
    main()
