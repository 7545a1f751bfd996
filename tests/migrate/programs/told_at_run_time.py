"""What only a run can tell."""

import argparse
import os
import sys

from sentence_transformers import CrossEncoder, SentenceTransformer, models

parser = argparse.ArgumentParser()
parser.add_argument("--embedding-model", default="sentence-transformers/all-MiniLM-L6-v2")
args = parser.parse_args()

a = SentenceTransformer(args.embedding_model)
b = SentenceTransformer(os.environ["MODEL"])
c = SentenceTransformer(os.getenv("MODEL", "BAAI/bge-small-en-v1.5"))
d = SentenceTransformer(sys.argv[1])
e = SentenceTransformer(modules=[models.Transformer("x")])
f = CrossEncoder(**{"model_name": "cross-encoder/ms-marco-MiniLM-L-6-v2"})
g = SentenceTransformer(*sys.argv)
h = SentenceTransformer("./my-model")


def unknown(name):
    return SentenceTransformer(name)

CHANGED = {"model_name_or_path": "a/before"}
CHANGED["model_name_or_path"] = input()
changed = SentenceTransformer(**CHANGED)
