from fastembed import TextEmbedding

Embedder = TextEmbedding


class Base(TextEmbedding):
    pass
