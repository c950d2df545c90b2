"""The kinds of tasks: one file and one row each."""

from __future__ import annotations

from collections.abc import Mapping

from iwlora.tasks.kinds.base import Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.generation import Instruction, Seq2Seq
from iwlora.tasks.kinds.multi_label import MultiLabel
from iwlora.tasks.kinds.question_answering import QuestionAnswering
from iwlora.tasks.kinds.regression import Regression
from iwlora.tasks.kinds.token_labels import TokenLabels

__all__ = ["KINDS", "Kind"]

KINDS: Mapping[str, type[Kind]] = {
    kind.name: kind
    for kind in (
        Classification,
        MultiLabel,
        Regression,
        TokenLabels,
        QuestionAnswering,
        Seq2Seq,
        Instruction,
    )
}
