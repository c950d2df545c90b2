"""The model families of the installed transformers, and the tasks that they can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

# The kind of a task -> the name of transformers' table of the families that can do it.
TABLES = {
    "classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "instruction": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "token-labels": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "question-answering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
}
# The kind of a task -> transformers' class that loads a model for it.
AUTO_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "instruction": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "token-labels": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
# What the checkpoints of a family on the hub usually are: the first that the family has.
_PRETRAINED = (
    ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "AutoModelForMaskedLM"),
    ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "AutoModelForSeq2SeqLM"),
    ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "AutoModelForCausalLM"),
)


def families() -> dict[str, list[str]]:
    """{family: the kinds of tasks that transformers has a model for}.

    Encoders are in its table of language models too, where they need a configuration of their own
    (``is_decoder``); iwlora refuses to generate with them.
    """
    encoders = _table("MODEL_FOR_MASKED_LM_MAPPING_NAMES")
    kinds: dict[str, list[str]] = {}
    for kind, table in TABLES.items():
        for family in _table(table):
            if kind != "instruction" or family not in encoders:
                kinds.setdefault(family, []).append(kind)
    return kinds


def one_kind_each(kinds: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """[(family, kind)]: of each family the kind that fewest families before it had.

    >>> one_kind_each({"a": ["x", "y"], "b": ["x", "y"], "c": ["x"]})
    [('a', 'x'), ('b', 'y'), ('c', 'x')]
    """
    used: Counter[str] = Counter()
    chosen = []
    for family, possible in kinds.items():
        kind = min(possible, key=lambda name: used[name])
        used[kind] += 1
        chosen.append((family, kind))
    return chosen


def task_class(kind: str) -> Any:
    """transformers' class that loads a model for a kind of task."""
    import transformers

    return getattr(transformers, AUTO_CLASSES[kind])


def checkpoint_class(family: str, kind: str) -> Any:
    """The class of the family's usual checkpoints, from which a model for the task is loaded."""
    import transformers

    if kind in ("instruction", "seq2seq"):
        return task_class(kind)
    names = (auto for table, auto in _PRETRAINED if family in _table(table))
    return getattr(transformers, next(names, "AutoModel"))


def _table(name: str) -> Mapping[str, Any]:
    from transformers.models.auto import modeling_auto

    table: Mapping[str, Any] = getattr(modeling_auto, name)
    return table
