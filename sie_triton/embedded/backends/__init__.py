"""Loaded by tritonserver's stub processes, one package per backend name of config.pbtxt."""
