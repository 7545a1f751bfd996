"""The only package that speaks to Triton: its protocol, its connections, its replicas."""
