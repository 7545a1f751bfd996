"""Transformer bodies, a file for each family of architectures; `table` has a row for each.

A body is written from its publication and from what transformers' classes compute. Sources are named in each file.
"""
