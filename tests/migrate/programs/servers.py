"""TEI and infinity, by their clients and by HTTP."""

import os

import httpx
import requests
from huggingface_hub import InferenceClient
from infinity_emb import AsyncEngineArray, EngineArgs
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

BASE = os.environ["TEI"]
requests.post(f"{BASE}/embed", json={"inputs": ["a"]})
requests.post("http://tei:80/rerank", json={"query": "q", "texts": ["a"]})
requests.post("http://localhost:7997/embeddings", json={"model": "BAAI/bge-small-en-v1.5", "input": ["a"]})
session = httpx.Client(base_url=BASE)
body = {"model": "sentence-transformers/all-MiniLM-L6-v2", "input": ["a"]}
session.post("/v1/embeddings", json=body)
requests.post("https://example.org/orders", json={"model": "none of ours"})

client = InferenceClient(model="http://tei:80")
client.feature_extraction("text")
InferenceClient().feature_extraction("text", model="intfloat/e5-large-v2")
engine = AsyncEngineArray.from_args([EngineArgs(model_name_or_path="BAAI/bge-reranker-v2-m3")])
HuggingFaceEndpointEmbeddings(model="sentence-transformers/all-MiniLM-L6-v2")
TextEmbeddingsInference(model_name="BAAI/bge-small-en-v1.5", base_url=BASE)
