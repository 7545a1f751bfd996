from fastembed.rerank.cross_encoder import TextCrossEncoder

from . import settings as configuration
from .clients import Base, Embedder
from .lazily import dense_class
from .settings import EMBEDDER, settings

one = Embedder(EMBEDDER)
two = TextCrossEncoder(settings.reranker)
three = Base(configuration.EMBEDDER)
lazy = dense_class()("BAAI/bge-base-en-v1.5")
