"""What NVIDIA's C++ backends accept: the facts that the linter and the embedded backends both go by.

Pure functions of a configuration, as a backend receives it, and of what a model file says of itself. Both sides put
the answers in words of their own. The standard library only, because tritonserver's stub processes import this.
"""
