"""`python -m sie_triton` is `sie-triton`."""

from sie_triton.entry import main

main()
