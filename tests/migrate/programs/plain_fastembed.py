import fastembed
import fastembed as fe
from fastembed import LateInteractionTextEmbedding, SparseTextEmbedding
from fastembed import TextEmbedding as Dense
from fastembed.rerank.cross_encoder import TextCrossEncoder

SMALL = "BAAI/bge-small-en-v1.5"

a = fe.TextEmbedding(model_name=SMALL, threads=2)
b = Dense()
c = fastembed.TextEmbedding("nomic-ai/nomic-embed-text-v1.5-Q")
d = SparseTextEmbedding("Qdrant/bm25")
e = LateInteractionTextEmbedding("colbert-ir/colbertv2.0")
f = TextCrossEncoder(model_name="Xenova/ms-marco-MiniLM-L-6-v2")
g = fe.ImageEmbedding("Qdrant/clip-ViT-B-32-vision")
h = Dense(model_name="intfloat/multilingual-e5-large")
