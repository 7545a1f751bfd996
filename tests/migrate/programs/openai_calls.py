import openai
from langchain_openai import OpenAIEmbeddings
from openai import AsyncOpenAI, OpenAI

client = OpenAI()
client.embeddings.create(model="text-embedding-3-small", input=["a"])
local = OpenAI(base_url="http://localhost:8001/v1", api_key="none")
local.embeddings.create(model="BAAI/bge-small-en-v1.5", input="a")
openai.Embedding.create(engine="text-embedding-ada-002", input=["a"])
openai.embeddings.create(model="text-embedding-3-large", input="a")
OpenAIEmbeddings()
OpenAIEmbeddings(model="BAAI/bge-small-en-v1.5", base_url="http://localhost:8001/v1")
client.chat.completions.create(model="gpt-4o", messages=[])


class Indexer:
    def __init__(self, client: AsyncOpenAI | None = None) -> None:
        self.client = client or AsyncOpenAI()

    async def go(self, texts):
        return await self.client.embeddings.create(model="text-embedding-3-small", input=texts)


def with_any(client, texts):
    return client.embeddings.create(input=texts, model="mixedbread-ai/mxbai-embed-large-v1")


def make():
    return OpenAI()


make().embeddings.create(model="text-embedding-3-small", input="a")
