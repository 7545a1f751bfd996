from chromadb.utils import embedding_functions
from haystack.components.embedders import SentenceTransformersDocumentEmbedder
from haystack_integrations.components.embedders.fastembed import FastembedTextEmbedder
from langchain_community.embeddings import FastEmbedEmbeddings, HuggingFaceBgeEmbeddings
from langchain_huggingface import HuggingFaceEmbeddings
from llama_index.embeddings.fastembed import FastEmbedEmbedding
from qdrant_client import QdrantClient, models

HuggingFaceEmbeddings()
HuggingFaceEmbeddings(model_name="sentence-transformers/all-MiniLM-L6-v2")
HuggingFaceBgeEmbeddings(model_name="BAAI/bge-small-en-v1.5")
FastEmbedEmbeddings()
FastEmbedEmbedding(model_name="BAAI/bge-small-en-v1.5")
FastembedTextEmbedder(model="BAAI/bge-small-en-v1.5")
SentenceTransformersDocumentEmbedder(model="sentence-transformers/all-MiniLM-L6-v2")
embedding_functions.SentenceTransformerEmbeddingFunction(model_name="all-MiniLM-L6-v2")
qdrant = QdrantClient(":memory:")
qdrant.set_model("BAAI/bge-small-en-v1.5")
models.Document(text="a", model="BAAI/bge-small-en-v1.5")
