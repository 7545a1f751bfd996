"""The tiny repository of the frontend's tests, and the application before a Triton that needs no graphs."""

from __future__ import annotations

from frontend.conftest import repository, service, triton

__all__ = ["repository", "service", "triton"]
