from pydantic import Field
from pydantic_settings import BaseSettings

EMBEDDER = "BAAI/bge-small-en-v1.5"


class Settings(BaseSettings):
    reranker: str = Field(default="Xenova/ms-marco-MiniLM-L-6-v2")


settings = Settings()
