"""Rerankers. Nothing else lives here."""
