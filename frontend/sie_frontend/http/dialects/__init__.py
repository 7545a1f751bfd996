"""Other people's requests and answers in terms of ours: OpenAI's embeddings, Jina's and Cohere's rerank. No I/O."""
