"""Tests of the embedded server; a package so that its helpers have names of their own."""
