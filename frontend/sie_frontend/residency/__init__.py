"""Which models Triton holds: a policy without I/O and the shell that carries it out. Knows no rows and no requests."""
