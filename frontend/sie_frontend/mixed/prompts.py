"""What a chat template's user says of an item or of a pair, as the authors of these models have published it."""

from __future__ import annotations

import unicodedata

from sie_frontend.mixed.entry import Conversation


def embedding_prompt(talk: Conversation, instruction: str, pictures: int, text: str | None) -> str:
    """An item under an instruction: its pictures, then its text."""
    return f"{talk.before}{instruction}{talk.between}{talk.picture * pictures}{text or ''}{talk.after}"


def ended(instruction: str) -> str:
    """An instruction without white space around it, and with a full stop where it ends in no punctuation."""
    found = instruction.strip()
    return found if not found or unicodedata.category(found[-1]).startswith("P") else f"{found}."


def reranker_prompt(
    talk: Conversation, system: str, instruction: str, query: tuple[int, str], document: tuple[int, str]
) -> tuple[str, str, str]:
    """A pair, each side as the number of its pictures and its text: what is in front of the document's text, that text,
    and what is behind it. A side with neither is `NULL`.
    """
    (shown, asked), (seen, text) = query, document
    said = f"<Instruct>: {instruction}<Query>:{talk.picture * shown}{asked or ('' if shown else 'NULL')}\n<Document>:"
    rest = talk.picture * seen if seen or text else "NULL"
    return f"{talk.before}{system}{talk.between}{said}{rest}", text, talk.after
