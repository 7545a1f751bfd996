"""The pages of `docs/` that are generated from the code, so that they cannot fall behind it.

Run as `python -m sie_triton.pages [--check] [--bundles DIR]`.
"""
