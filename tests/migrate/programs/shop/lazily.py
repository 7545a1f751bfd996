"""Imports a library only where it is asked for."""


def dense_class() -> type:
    from fastembed import TextEmbedding

    return TextEmbedding
