"""Names that look alike and are none."""

import requests


class TextEmbedding:
    def __init__(self, model_name: str) -> None:
        self.model_name = model_name


TextEmbedding("BAAI/bge-small-en-v1.5")
requests.get("http://tei/embed")
requests.post("https://example.org/embeds", json={})
