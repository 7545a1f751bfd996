"""`python -m sie_triton.cli` is `sie-triton`."""

from sie_triton.cli import main

main()
