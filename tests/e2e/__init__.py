"""The product as its users run it: real weights, a real tritonserver, the command line, HTTP."""
