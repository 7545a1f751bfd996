"""A library that may be missing, and calls that are made later, out of maps, and with unpacked arguments."""

from concurrent.futures import ThreadPoolExecutor

try:
    from fastembed import TextEmbedding
except ImportError:
    TextEmbedding = None
try:
    import fastembed
except ImportError:
    fastembed = None
try:
    from sentence_transformers import SentenceTransformer
except ImportError:

    class SentenceTransformer:
        pass


try:
    from fastembed import SparseTextEmbedding
except ImportError:
    from nowhere import SparseTextEmbedding

optional = TextEmbedding("a/none")
module = fastembed.TextEmbedding("a/module")
stub = SentenceTransformer("a/stub")
sparse = SparseTextEmbedding("a/second-import")


class Late:
    TextEmbedding = None

    def __init__(self) -> None:
        from fastembed import TextEmbedding

        self.kind = TextEmbedding

    def load(self) -> object:
        return self.kind("a/attribute")

    def chosen(self) -> type:
        return self.kind


loaded, method = Late().load(), Late().chosen()("a/method")

KINDS = {"fastembed": TextEmbedding, "st": SentenceTransformer}
mapped = KINDS["fastembed"]("a/mapped")
got = KINDS.get("st")("a/got")
for name in KINDS:
    KINDS[name]("a/either")
for kind in (TextEmbedding, SentenceTransformer):
    kind("a/loop")

SETTINGS = dict(model_name="a/dict", threads=1)
MORE = {**SETTINGS, "cache_dir": "cache"}
ARGUMENTS = ("a/starred",)
by_dict = TextEmbedding(**SETTINGS)
by_both = TextEmbedding(**{**MORE, "lazy_load": True})
by_tuple = TextEmbedding(*ARGUMENTS)
with ThreadPoolExecutor() as pool:
    pool.submit(TextEmbedding, "a/submitted").result()
make = lambda name="a/lambda": TextEmbedding(name)  # noqa: E731
made = make()
