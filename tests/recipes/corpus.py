"""Fixed texts: what the tiny tokenizers learn from, and what the tests encode."""

from __future__ import annotations

TRAINING = (
    "The mitochondrion is the powerhouse of the cell, and every cell of the body keeps hundreds of them.",
    "A query asks; a document answers. Which document answers the query best? That is for the ranking to say.",
    "Rivers carry sand to the sea, the sea carries salt to the wind, and the wind carries rain to the hills.",
    "In 1969 two people walked on the moon; in 1972 the last of twelve came home with 110 kilograms of stone.",
    "Search engines compare vectors: a dense vector of floats, a sparse vector of weights, or one per token.",
    "yes no Yes No yes no 1 0 1 0 Yes No yes no relevant or not relevant, true or false, query and passage.",
    "Die Straße führt über die Brücke zum Markt, wo man Äpfel, Öl und Übermut verkauft.",
    "Le café est fermé à midi, mais la bibliothèque reste ouverte jusqu'à vingt heures.",
    "机器学习 模型 把 文本 变成 向量 . 検索 は 文書 を 探す . Поиск находит документы .",
    "def encode(text: str) -> list[float]: return model(tokenizer(text)) # (see also: decode, rank)",
    "Given a web search query, retrieve relevant passages that answer the query. Judge whether the document fits.",
    "Instruct: find the passage. Query: what is the title of the text? passage: none, task: search result",
    "Small models learn small things; large models learn large things slowly, and forget them just the same.",
    "yes\nno\nYes\nNo\n1\n0\nno\nyes\nno\nYes\nno\nno\nNo\nyes\nYes\nno",
    "Bread needs flour, water, salt and time. Coffee needs beans, water, heat and patience!",
)

QUERY = "Which part of the cell gives it energy?"
TEXTS = (
    "The mitochondrion is the powerhouse of the cell.",
    "Rain falls on the hills; rivers carry it back to the sea (slowly, over 1000 km).",
    "salt",
    "Die Brücke über den Fluss, 検索 は 向量: naïve café!",
)
LONG_TEXT = " ".join(TRAINING) + " " + " ".join(reversed(TRAINING))
"""More tokens than any of the tiny checkpoints takes: what truncation is tested with."""
