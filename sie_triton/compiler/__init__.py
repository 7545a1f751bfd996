"""The compiler: bundle and checkpoint in, verified repository out. It orders the stages and owns none of them."""
