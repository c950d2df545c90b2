"""The layout of SQuAD's files: articles with passages, and each passage with its questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def is_squad(value: Any) -> bool:
    """Whether a JSON value has articles with passages.

    >>> is_squad({"data": [{"paragraphs": []}]})
    True
    """
    articles = value.get("data") if isinstance(value, Mapping) else None
    first = articles[0] if isinstance(articles, list) and articles else None
    return isinstance(first, Mapping) and "paragraphs" in first


def squad_questions(value: Any) -> Iterator[tuple[Any, tuple[Any, Any]]]:
    """(id, or number from 1 where it has none; (question with its answers, passage)).

    Raises ``KeyError`` or ``TypeError`` for a value of another form.
    """
    number = 0
    for article in value["data"]:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                number += 1
                identifier = entry.get("id", number) if isinstance(entry, dict) else number
                yield identifier, (entry, paragraph["context"])


def squad_row(entry: Any, context: Any) -> dict[str, Any]:
    """{question, context, answers} of a question; no answers where it is impossible to answer.

    Raises ``ValueError`` for an entry of another form.

    >>> squad_row({"question": "Why?", "is_impossible": True}, "It rains.")
    {'question': 'Why?', 'context': 'It rains.', 'answers': {'text': [], 'answer_start': []}}
    """
    try:
        question = entry["question"]
        given = [] if entry.get("is_impossible") else entry["answers"]
        starts = [answer["answer_start"] for answer in given]
        answers = {"text": [answer["text"] for answer in given], "answer_start": starts}
    except KeyError as error:
        raise ValueError(f"it has no {error}") from None
    except (TypeError, AttributeError):
        raise ValueError("it is no {id, question, answers: [{text, answer_start}]}") from None
    return {"question": question, "context": context, "answers": answers}
