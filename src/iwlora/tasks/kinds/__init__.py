"""The kinds of tasks: one file and one row for each."""

from __future__ import annotations

from collections.abc import Mapping

from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.contract import EncodingInput, Evaluation, Kind
from iwlora.tasks.kinds.generation.instruction import Instruction
from iwlora.tasks.kinds.generation.kind import Seq2Seq
from iwlora.tasks.kinds.generation.language_modeling import LanguageModeling
from iwlora.tasks.kinds.images.kinds import ImageClassification, ImageMultiLabel, ImageRegression
from iwlora.tasks.kinds.images.tokens import ImageTokens
from iwlora.tasks.kinds.multi_label import MultiLabel
from iwlora.tasks.kinds.question_answering import QuestionAnswering
from iwlora.tasks.kinds.regression import Regression
from iwlora.tasks.kinds.token_labels import TokenLabels

__all__ = ["KINDS", "EncodingInput", "Evaluation", "Kind"]

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
        LanguageModeling,
        ImageClassification,
        ImageMultiLabel,
        ImageRegression,
        ImageTokens,
    )
}
