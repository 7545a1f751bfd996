"""SIE's HTTP contract as pure functions: requests, options, errors, bodies. No I/O, no model, no Triton."""
